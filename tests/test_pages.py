"""README and the pages of docs: their code runs, their links lead somewhere, and README is short."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
MOST_WORDS = 1_000
SETUP = """
import keras
import tensorflow as tf
from sklearn.datasets import load_digits

import tb_nanwatch

images, labels = load_digits(return_X_y=True)
batches = tf.data.Dataset.from_tensor_slices((images.astype("float32") / 16, labels)).shuffle(2000, seed=1).batch(128)
model = keras.Sequential([keras.layers.Dense(128, "relu", name="hidden"), keras.layers.Dense(10, name="logits")])
model.build((None, 64))
optimizer, loss_of = keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(1e-3), loss_of)
"""
"""The names that the pages use, as docs/ways-to-train.md introduces them."""
PROGRAM = """
import os, runpy, sys
for page in sys.argv[1:]:
    os.mkdir(page), os.chdir(page)
    runpy.run_path(f"../{page}.py")
    os.chdir("..")
"""


def text_of(page):
    return page.read_text(encoding="utf-8")


def blocks_of(page):
    return re.findall(r"^```python\n(.*?)^```", text_of(page), flags=re.MULTILINE | re.DOTALL)


def run(arguments, directory):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def after_the_blocks(tmp_path_factory):
    """The directory in which the blocks of each page ran, one page after the other, each with names of its own."""
    directory = tmp_path_factory.mktemp("pages")
    pages = [page for page in PAGES if blocks_of(page)]
    for page in pages:
        (directory / f"{page.stem}.py").write_text("\n".join([SETUP, *blocks_of(page)]), encoding="utf-8")
    done = run(["-c", PROGRAM, *(page.stem for page in pages)], directory)
    assert done.returncode == 0, done.stderr
    return directory


def verdicts_of(page, directory):
    done = run(["-m", "tb_nanwatch", "runs", "--json"], directory / page)
    return {verdict["run"]: verdict for verdict in json.loads(done.stdout)["runs"]}, done.returncode


def test_the_blocks_of_readme_run_and_leave_two_finite_runs(after_the_blocks):
    verdicts, status = verdicts_of("README", after_the_blocks)
    seen = {name: (verdict["status"], verdict["steps_seen"]) for name, verdict in verdicts.items()}
    assert seen == {"fit": ("finite", 15), "digits": ("finite", 15)}
    assert status == 0


def test_the_custom_loop_and_the_fit_are_watched_to_their_end(after_the_blocks):
    verdicts, _ = verdicts_of("ways-to-train", after_the_blocks)
    assert verdicts["digits"]["status"] == "finite"
    assert verdicts["digits"]["steps_seen"] == 15
    assert (verdicts["fit"]["status"], verdicts["fit"]["steps_seen"]) == ("finite", 15)


def test_the_micro_batches_of_an_update_are_one_step(after_the_blocks):
    verdicts, _ = verdicts_of("micro-batches", after_the_blocks)
    assert (verdicts["accumulated"]["status"], verdicts["accumulated"]["steps_seen"]) == ("finite", 15)


def test_the_recorded_root_is_reported_in_its_third_step(after_the_blocks):
    verdicts, status = verdicts_of("policies", after_the_blocks)
    first = verdicts["recorded"]["first"]
    assert (first["step"], first["phase"], first["tensor"], first["kind"]) == (2, "forward", "root", "nan")
    assert status == 1


def test_the_replayed_logarithm_is_named_with_its_sample(after_the_blocks):
    verdicts, status = verdicts_of("replay", after_the_blocks)
    assert (verdicts["suspect"]["first"]["op"]["type"], verdicts["suspect"]["first"]["samples"]) == ("Log", [1])
    assert status == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page):
    for target, heading in re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", text_of(page)):
        file = page.parent / target if target else page
        assert file.exists(), target
        headings = re.findall(r"^#+ (.+)$", text_of(file), flags=re.MULTILINE) if heading else []
        slugs = {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in headings}
        assert not heading or heading in slugs, heading


def test_readme_links_to_every_page():
    links = set(re.findall(r"\]\((docs/[^)#]+\.md)", text_of(README)))
    assert links == {f"docs/{page.name}" for page in PAGES if page != README}


def test_readme_is_short():
    assert len(text_of(README).split()) <= MOST_WORDS


def test_the_commands_of_the_makefile_are_those_of_readme():
    targets = set(re.findall(r"^make (\w+)", text_of(README), flags=re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets == {"demo", "test"}
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_every_path_that_a_document_names_exists():
    documents = [*PAGES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    named = re.compile(r"`((?:benchmarks|demo|docs|frontend|tb_nanwatch|tests)/[\w./-]*)")
    missing = {name for page in documents for name in named.findall(text_of(page)) if not (ROOT / name).exists()}
    assert missing - {"tb_nanwatch/plugin/static/"} == set()
