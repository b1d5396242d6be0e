# Every target creates the environment that it needs. A stamp marks it, so that a second call is quick.

PYTHON ?= python3
DEMO ?= exploding_critic
LOGDIR ?= runs/$(DEMO)
# Two processes: tests wait for TensorFlow, a browser or TensorBoard more than they compute.
PYTEST_FLAGS ?= -n 2 --dist loadfile
# FAST=1 leaves out the tests that train whole programs, or start TensorBoard or a browser.
SLOW_TESTS := $(addprefix tests/,browser demo matrix benchmarks test_wheel.py test_recipes.py test_pages.py test_cli.py) \
  $(addprefix tests/plugin/,test_server.py test_damaged_logs.py) \
  $(addprefix tests/watch/,test_api.py test_faults.py test_loss_scale.py test_owners.py) \
  $(addprefix tests/watch/row/,test_microbatches.py test_scalars.py test_infinities.py test_measure.py) \
  $(addprefix tests/watch/record/,test_kill.py test_full_disk.py test_draws.py test_archive.py) \
  $(addprefix tests/watch/guard/,test_skip.py test_session_state.py) \
  $(addprefix tests/watch/drivers/,keras strategy session_v1 test_several.py test_optimizer.py test_unrolled.py test_unfinished.py) \
  $(addprefix tests/watch/replay/,test_cases.py test_one_sentence.py test_session_trace.py test_memory.py test_state.py \
    test_replay_step.py test_advice.py test_dump.py test_kill.py test_last_update.py test_bounds.py test_failure.py)

VENV := .venv
DEMO_STAMP := $(VENV)/demo.stamp
DEV_STAMP := $(VENV)/dev.stamp
NODE_MODULES := frontend/node_modules/.package-lock.json
PROTO := tb_nanwatch/schema/nanwatch.proto
PROTOC = protoc -I . --python_out=$(1) --pyi_out=$(1) $(PROTO)
PROTO_CHECK := $(VENV)/protocol
# An install bundles the page, so it runs again when the page has changed.
INSTALL := pyproject.toml setup.py frontend/build.mjs frontend/package-lock.json $(shell find frontend/src)

SHELL := /bin/bash
# The shell searches the environment for commands first. Old versions of make run simple commands without the shell, and
# would not search there. Naming another shell than /bin/sh prevents this.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export TF_CPP_MIN_LOG_LEVEL ?= 2

.NOTPARALLEL:
.PHONY: help demo unknown-demo test check lint types page generated chromium unit bench protocol screenshot clean

help:
	@echo "make demo      train a critic that diverges, name the origin, serve TensorBoard (SERVE=0: stop before that;"
	@echo "               DEMO=name: another demo, one of $(DEMOS))"
	@echo "make test      every check that CI runs"
	@echo "make check     the same; with FAST=1 without the tests that take long: for daily work"
	@echo "make bench     overhead, log growth and latency (QUICK=1: a short run)"
	@echo "make protocol  write the generated files"
	@echo "make screenshot  take README's picture again"
	@echo "make clean     remove whatever git does not keep"

# Environments

$(VENV)/bin/pip:
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "\
	$(PYTHON) -m venv must work, and it did not. Install venv and ensurepip for it (on Debian: apt-get install \
	python3-venv), or name another interpreter: make PYTHON=python3.12" >&2; exit 1; }

$(DEMO_STAMP): $(VENV)/bin/pip $(INSTALL)
	pip install --quiet --editable '.[demo]'
	@touch $@

$(DEV_STAMP): $(VENV)/bin/pip $(INSTALL)
	pip install --quiet --editable '.[dev]'
	@touch $@ $(DEMO_STAMP)

$(NODE_MODULES): frontend/package.json frontend/package-lock.json | $(DEV_STAMP)
	npm --prefix frontend ci
	@touch $@

chromium:
	@if command -v chromium >/dev/null; then exit 0; \
	elif ! command -v apt-get >/dev/null; then \
	  echo "The browser tests need Chromium on the path, and there is no apt-get to install it with: install it by hand." >&2; exit 1; \
	elif [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; \
	elif sudo -n true 2>/dev/null; then sudo apt-get update -qq && sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; \
	else echo "The browser tests need Chromium, and installing it needs root: sudo apt-get install chromium" >&2; exit 1; fi

# Uses

# Each demo is a script in demo/, and its runs: one for each string of flags.
RUNS.exploding_critic := "--activation relu" "--activation tanh"
RUNS.alphazero := "--loss probabilities" "--loss logits"
RUNS.accumulated_policy_gradient := "--accumulate sum" "--accumulate mean"
RUNS.clip_global_norm := "--activation sigmoid" "--activation relu"
DEMOS := $(sort $(patsubst RUNS.%,%,$(filter RUNS.%,$(.VARIABLES))))

# nanwatch ends with 1 if a run is non-finite. Here that is the right answer.
demo: $(if $(RUNS.$(DEMO)),,unknown-demo) $(DEMO_STAMP)
	rm -rf $(LOGDIR)
	@for flags in $(RUNS.$(DEMO)); do (set -x; python demo/$(DEMO).py --logdir $(LOGDIR) $$flags) || exit; done
	nanwatch $(LOGDIR) || test $$? -eq 1
ifneq ($(SERVE),0)
	@echo "The NaN Watch tab is at the address below, followed by #nanwatch."
	tensorboard --logdir $(LOGDIR)
endif

unknown-demo:
	@echo "DEMO must be one of $(DEMOS); got $(DEMO)" >&2; exit 1

bench: $(DEMO_STAMP) $(DEV_STAMP) chromium
	python benchmarks/run.py $(if $(QUICK),--quick,--write)

protocol: $(DEV_STAMP)
	$(call PROTOC,.)
	python -m frontend.generate_protocol
	python -m docs.generate
	python -m tests.matrix.table

# Checks, the quick ones first

test: lint types page generated unit

check: test

lint: $(DEV_STAMP)
	ruff format --check
	ruff check

types: $(DEV_STAMP)
	mypy

page: $(NODE_MODULES)
	npm --prefix frontend run lint
	npm --prefix frontend run typecheck
	npm --prefix frontend test

generated: $(DEV_STAMP)
	@mkdir -p $(PROTO_CHECK)
	@$(call PROTOC,$(PROTO_CHECK))
	@for file in nanwatch_pb2.py nanwatch_pb2.pyi; do \
	  cmp tb_nanwatch/schema/$$file $(PROTO_CHECK)/tb_nanwatch/schema/$$file \
	    || { echo "tb_nanwatch/schema/$$file must be what protoc makes of $(PROTO): run make protocol" >&2; exit 1; }; \
	done
	python -m frontend.generate_protocol --check
	python -m docs.generate --check
	python -m tests.matrix.table --check
	python -m benchmarks.pages --check

unit: $(DEV_STAMP) $(if $(FAST),,chromium)
	pytest $(PYTEST_FLAGS) $(if $(FAST),$(addprefix --ignore=,$(SLOW_TESTS)))

# The picture in README: the demo's run as the browser test shows it.
screenshot: $(DEV_STAMP) chromium
	NANWATCH_SCREENSHOT=docs/nan-watch.png pytest tests/browser/test_demo.py -k pictured

clean:
	rm -rf $(VENV) frontend/node_modules tb_nanwatch/plugin/static runs build dist *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
