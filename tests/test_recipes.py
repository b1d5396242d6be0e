"""Each recipe of CONTRIBUTING works on a copy of this checkout, and touches only the files that it names."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest

from tb_nanwatch.schema.records import Replay
from tests.event_files import RunWriter, steps_of
from tests.programs import read_verdicts
from tests.recipes.checkout import ROOT, Checkout, named_paths, section, unnamed
from tests.replays import alert_of, link, operand, replayed

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path / "checkout")


def assert_only_named_files_changed(checkout, *titles):
    """Check what the recipes leave changed: the files that they name, and those that ``make protocol`` writes."""
    recipes = [section(CONTRIBUTING, title) for title in titles]
    named = set().union(*map(named_paths, recipes))
    generates = any("`make protocol`" in recipe for recipe in recipes)
    generated = named_paths(section(CONTRIBUTING, "Generated files")) if generates else set()
    assert unnamed(checkout.changed(), named | generated) == []


def test_a_file_that_a_recipe_does_not_name_is_found(checkout):
    recipe = "One entry in `KINDS` of\n`docs/decisions/` and of `tb_nanwatch/cli.py`, and `make protocol`."
    assert checkout.changed() == []
    checkout.append("tb_nanwatch/cli.py", "")
    assert checkout.changed() == []
    for path in ("tb_nanwatch/cli.py", "docs/decisions/new.md", "docs/scaling.md"):
        checkout.write(path, "new")
    assert unnamed(checkout.changed(), named_paths(recipe)) == ["docs/scaling.md"]


# A statistic

STATISTIC = """
    Stat(
        key="{key}",
        scope="{scope}",
        meaning="{meaning}",
        merges=("max", "mean"),
        combine="{combine}",
    ),
""".strip("\n")
CENTRED = '''

def centred_norm(values: npt.ArrayLike) -> float:
    """Return the L2 norm of the values without their mean."""
    array = np.asarray(values, np.float64)
    return l2_norm(array - array.mean())
'''
CENTRED_GRADIENT = '''

def centred(gradient: Gradient) -> tf.Tensor | None:
    """Return the values of a gradient without their mean."""
    values = dense_values(gradient)
    return None if values is None else values - tf.reduce_mean(values)
'''
CENTRED_KIND = """
    CellKind(
        "centred",
        names=lambda layout: layout.names,
        tensors=lambda step: step.raw,
        stat="centred_norm",
        measure=lambda gradient: half_sum_of_squares(centred(gradient)),
        resolve=lambda gradient: Resolved(None, resolve(centred(gradient)).cell),
    ),
""".strip("\n")
CENTRED_TEST = """

@pytest.mark.parametrize("way", WAYS)
def test_a_centred_norm_is_that_of_numpy(way):
    cell = WAYS[way](lambda x: half_sum_of_squares(centred(x)))(tf.constant([1.0, 2.0, 6.0]))
    np.testing.assert_allclose(norm_in(cell.numpy()), centred_norm([1.0, 2.0, 6.0]), rtol=1e-6)
"""
GLOBAL_WEIGHT_TEST = """

def test_the_global_norm_of_the_weights_is_that_of_all_variables():
    rows = rows_of(decoder(), [[0, 0, 0, 0, 4.5, 8.0, 0, 0]])
    assert decoder().decode(rows, np.array([7]), {}).column("global_weight_norm", "max") == [[5.0]]
"""
TRAINING = '''
"""Train four steps, and print the gradients, the variables and what the page is answered about a statistic."""
import json, sys
import numpy as np
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tb_nanwatch import Watch
from tests.plugin.test_plugin import ask, client_of
from tests.watch.conftest import ReadBack, Regression

logdir, stat = sys.argv[1:]
training, gradients, weights = Regression(), [], []
with Watch(logdir, training.variables) as watch:
    @watch.step
    def step(x, y):
        loss, found = training.gradients(x, y)
        watch.apply_gradients(training.optimizer, zip(found, training.variables), loss=loss)
        return found

    for _ in range(4):
        weights.append([variable.numpy().tolist() for variable in training.variables])
        gradients.append([gradient.numpy().tolist() for gradient in step(training.x, training.y)])
multiplexer = EventMultiplexer(tensor_size_guidance={"nanwatch": 0})
multiplexer.AddRunsFromDirectory(logdir).Reload()
client = client_of(MultiplexerDataProvider(multiplexer, logdir))
series = ask(client, "series", run=".", points=10)
answers = {
    "gradients": gradients,
    "weights": weights,
    "column": ReadBack(logdir).column(stat).tolist(),
    "curves": {curve["name"]: curve["max"] for curve in series["curves"]},
}
if sys.argv[2] == "centred_norm":
    heatmap = ask(client, "heatmap", run=".", stat=stat, by="layer", columns=10)
    answers["layers"] = {row["label"]: values for row, values in zip(heatmap["rows"], heatmap["values"])}
print(json.dumps(answers))
'''


def add_stat(checkout, **facts):
    checkout.add_entry("tb_nanwatch/schema/stats.py", "STATS", STATISTIC.format(**facts))


def add_global_weight_norm(checkout):
    add_stat(
        checkout, key="global_weight_norm", scope="step", meaning="L2 norm of all variables together.", combine="none"
    )
    derived = '    DerivedStat("global_weight_norm", ("weight_norm",), _norm_together),'
    checkout.add_entry("tb_nanwatch/watch/row/decoding.py", "DERIVED", derived)


def write_protocol(checkout):
    """Run what ``make protocol`` runs for the catalogue."""
    checkout.run(sys.executable, "-m", "frontend.generate_protocol")
    checkout.run(sys.executable, "-m", "docs.generate")
    return checkout.read("frontend/src/protocol.gen.ts"), checkout.read("docs/statistics.md")


def train(checkout, tmp_path, stat):
    """Train in the copy, and return what its program prints."""
    program = tmp_path / "training.py"
    program.write_text(TRAINING, encoding="utf-8")
    return json.loads(checkout.run(sys.executable, program, tmp_path / "logdir", stat).splitlines()[-1])


def test_a_statistic_that_a_step_measures_reaches_the_log_the_page_and_the_documentation(checkout, tmp_path):
    meaning = "L2 norm of the gradient without its mean."
    add_stat(checkout, key="centred_norm", scope="variable", meaning=meaning, combine="root_sum_square")
    checkout.append("tb_nanwatch/numerics/norms.py", CENTRED)
    checkout.append("tb_nanwatch/watch/row/measure.py", CENTRED_GRADIENT)
    cells = "tb_nanwatch/watch/row/cells.py"
    checkout.add_entry(cells, "KINDS", CENTRED_KIND)
    checkout.replace(cells, "    SampledTensor,\n", "    SampledTensor,\n    centred,\n")
    checkout.replace(cells, '"bad microbatch mark"]', '"bad microbatch mark", "centred"]')
    test = "tests/watch/row/test_measure.py"
    checkout.append(test, CENTRED_TEST)
    checkout.replace(test, "norms import l2_norm", "norms import centred_norm, l2_norm")
    checkout.replace(test, "measure import (\n", "measure import (\n    centred,\n")
    types, page = write_protocol(checkout)
    assert '\n  | "centred_norm"' in types
    assert f"| `centred_norm` | variable | 1 | float32 | {meaning} | max, mean | root sum square |" in page
    checkout.run_tests(
        test, "tests/watch/row/test_cells.py", "tests/schema/test_stats.py", "-k", "centred or cell or stat"
    )
    checkout.run("ruff", "check", "tb_nanwatch", "tests/watch/row")
    answers = train(checkout, tmp_path, "centred_norm")
    norms = np.array([[np.std(one) * np.size(one) ** 0.5 for one in step] for step in answers["gradients"]])
    np.testing.assert_allclose(answers["column"], norms, rtol=1e-5)
    layers = {"hidden": norms[:, :2], "head": norms[:, 2:]}
    assert answers["layers"] == {
        f"sequential/{name}": pytest.approx(np.linalg.norm(columns, axis=1), rel=1e-5)
        for name, columns in layers.items()
    }
    assert_only_named_files_changed(checkout, "Add a statistic")


def test_a_statistic_that_the_host_computes_reaches_the_log_the_page_and_the_documentation(checkout, tmp_path):
    add_global_weight_norm(checkout)
    checkout.append("tests/watch/row/test_cells.py", GLOBAL_WEIGHT_TEST)
    types, page = write_protocol(checkout)
    assert '\n  | "global_weight_norm"' in types
    assert (
        "| `global_weight_norm` | step | 1 | float32 | L2 norm of all variables together. | max, mean | none |" in page
    )
    checkout.run_tests("tests/watch/row/test_cells.py", "tests/schema/test_stats.py", "tests/golden")
    answers = train(checkout, tmp_path, "global_weight_norm")
    norms = [math.hypot(*(np.linalg.norm(one) for one in step)) for step in answers["weights"]]
    np.testing.assert_allclose(answers["column"], [[norm] for norm in norms], rtol=1e-5)
    assert answers["curves"]["global_weight_norm"] == pytest.approx(norms, rel=1e-5)
    assert_only_named_files_changed(checkout, "Add a statistic")


# A warning and a cause

RULE = """
def _large_loss(signs: Signs) -> Sign | None:
    series = signs.session.series
    if ("loss", "max") not in series.columns:
        return None
    is_large = _floats(series, "loss", "max")[:, 0] > 1e6
    if not is_large.any():
        return None
    step = int(series.first_step[is_large.argmax()])
    return Sign(step, None, f"The loss is above a million from step {step:,} on.")
""".strip("\n")
RULE_TEST = """

@pytest.mark.parametrize(("loss", "warns"), [(2e6, True), (1e6, False)])
def test_a_large_loss_is_a_warning(loss, warns):
    session = SessionLog(HEADER, steps_of(0, 4, loss=[1.0, 1.0, loss, 1.0, 1.0]))
    assert (warning_about(session, "large-loss") is not None) == warns
"""


def test_a_warning_is_shown_by_the_command(checkout, tmp_path):
    signs = "tb_nanwatch/diagnosis/signs.py"
    checkout.insert_before(signs, "WARNINGS", RULE)
    checkout.add_entry(signs, "WARNINGS", '    "large-loss": _large_loss,')
    checkout.append("tests/diagnosis/test_signs.py", RULE_TEST)
    checkout.run("ruff", "check", "tb_nanwatch/diagnosis", "tests/diagnosis")
    checkout.run_tests("tests/diagnosis/test_signs.py")
    RunWriter(tmp_path / "logdir" / "nanwatch").header().spans(steps_of(0, 9, loss=[1.0] * 7 + [2e6] * 3))
    verdict = read_verdicts(tmp_path / "logdir", root=checkout.root)["."]
    text = "The loss is above a million from step 7 on."
    assert verdict["warnings"] == [{"kind": "large-loss", "first_step": 7, "layer": None, "text": text}]
    assert (verdict["status"], verdict["text"]) == ("warning", f"Finite in all 10 steps. {text}")
    assert_only_named_files_changed(checkout, "Add a warning")


def write_bad_run(logdir, origin):
    """Write a run whose last step is bad, with a replay that found the origin."""
    series = steps_of(0, 29)
    alert = alert_of(None, window=series)
    replay = Replay("found", chains=((origin,),))
    RunWriter(logdir / "nanwatch").header().spans(series).alert(alert).alert(replayed(alert, replay), number=1)


ROUNDING = """
def _ceiling(link: Link) -> str | None:
    match link.inputs:
        case (x, *_) if x.max is not None and x.max > 1e38:
            return f"Ceil of a tensor whose maximum is {number(x.max)}: there are no whole numbers left."
    return None
""".strip("\n")
ROUNDING_RULE = """    Rule("ceiling", frozenset({"Ceil"}), _ceiling, "Round smaller numbers: tf.minimum(x, 1e38)."),"""
ROUNDING_TEXT = """
    (
        ("pos_inf", "Ceil", operand(0.0, 2e38)),
        "ceiling",
        "Ceil of a tensor whose maximum is 2e+38: there are no whole numbers left.",
    ),
""".strip("\n")
ROUNDING_EXAMPLE = """
    Example(
        "Ceil",
        "tf.math.ceil(x) * 2.0",
        ("x",),
        "tf.minimum(x, 1e38)",
        "tf.math.ceil(tf.minimum(x, 1e38)) * 2.0",
        {"x": single(2e38, 1)},
    ),
""".strip("\n")


def test_a_cause_of_an_operation_is_shown_by_the_command(checkout, tmp_path):
    operations, tests = "tb_nanwatch/diagnosis/operations", "tests/diagnosis/operations"
    checkout.insert_before(f"{operations}/domains.py", "RULES", ROUNDING)
    checkout.add_entry(f"{operations}/domains.py", "RULES", ROUNDING_RULE)
    checkout.add_entry(f"{tests}/test_rules.py", "TEXTS", ROUNDING_TEXT)
    checkout.add_entry(f"{tests}/test_fixes.py", "EXAMPLES", ROUNDING_EXAMPLE)
    checkout.run("ruff", "check", operations, tests)
    checkout.run_tests(tests, "-k", "Ceil or ceiling or every_rule")
    write_bad_run(tmp_path, link("pos_inf", operand(0.0, 3e38), op="Ceil"))
    (cause,) = read_verdicts(tmp_path, root=checkout.root)["."]["causes"]
    assert cause == {
        "id": "ceiling",
        "text": "Ceil of a tensor whose maximum is 3e+38: there are no whole numbers left.",
        "fix": "Round smaller numbers: tf.minimum(x, 1e38).",
        "confidence": "high",
    }
    assert_only_named_files_changed(checkout, "Add a cause")


RECORDED_RULE = """
    Rule("odd-loss", frozenset({"loss"}), "The loss is odd.", "Choose another loss.", "low"),
""".strip("\n")
RECORDED_TEST = """

def test_an_odd_loss_is_a_cause_of_the_loss_alone():
    assert ("odd-loss", "low") in causes_of("loss", "loss")
    assert "odd-loss" not in dict(causes_of("gradient"))
"""


def test_a_cause_that_the_records_suggest_is_shown_by_the_command(checkout, tmp_path):
    checkout.add_entry("tb_nanwatch/diagnosis/causes.py", "RULES", RECORDED_RULE)
    checkout.append("tests/diagnosis/test_causes.py", RECORDED_TEST)
    checkout.run("ruff", "check", "tb_nanwatch/diagnosis", "tests/diagnosis")
    checkout.run_tests("tests/diagnosis/test_causes.py", "-k", "odd_loss")
    write_bad_run(tmp_path, link("nan", op="MyOwn"))
    (cause,) = read_verdicts(tmp_path, root=checkout.root)["."]["causes"]
    assert (cause["id"], cause["fix"]) == ("odd-loss", "Choose another loss.")
    assert_only_named_files_changed(checkout, "Add a cause")


# A way to train

WAY = """    Way("plain descent", "`tb_nanwatch.Descent`", plain_descent, builds=False),"""
WAY_PROGRAM = """
def plain_descent(setup: Setup, batches: Sequence[Batch]) -> State:
    net = Network()

    def unwatched(x: tf.Tensor, y: tf.Tensor) -> None:
        for gradient, variable in zip(net.gradients(x, y)[1], net.variables, strict=True):
            variable.assign_sub(0.01 * gradient)

    step: Any = tf.function(unwatched)
    if setup.logdir is not None:
        step = Descent(setup.logdir, net.gradients, net.variables, rate=0.01, policy=setup.policy)
    for batch in batches:
        step(*tensors(batch))
    if setup.logdir is not None:
        step.close()
    return net.state()
""".strip("\n")


def test_a_way_to_train_is_compared_with_itself_unwatched(checkout):
    driver = (ROOT / "tests" / "recipes" / "descent.py").read_text(encoding="utf-8")
    checkout.write("tb_nanwatch/watch/drivers/descent.py", driver)
    package, home = "tb_nanwatch/__init__.py", "tb_nanwatch.watch.drivers.descent"
    checkout.add_entry(package, "_HOME", f'    "Descent": "{home}",')
    checkout.replace(package, '__all__ = ["Batch",', '__all__ = ["Batch", "Descent",')
    checkout.replace(package, "\n__version__", f"    from {home} import Descent\n\n__version__")
    ways = "tests/matrix/ways.py"
    checkout.replace(ways, "import NanWatchCallback", "import Descent, NanWatchCallback")
    checkout.insert_before(ways, "WAYS", WAY_PROGRAM)
    checkout.add_entry(ways, "WAYS", WAY)
    checkout.run(sys.executable, "-m", "tests.matrix.table")
    row = "| plain descent | `tb_nanwatch.Descent` | yes | yes | yes | raise, skip |"
    assert row in checkout.read("docs/ways-to-train.md")
    checkout.run_tests("tests/test_architecture.py", "-k", "obeys")
    # Unchanged good steps, a bad step under three policies, and a skipped step.
    assert "\n5 passed" in checkout.run_tests("tests/matrix", "-k", "descent")
    assert_only_named_files_changed(checkout, "Add a way to train")


# A chart

CHART = """  { title: "Weights", lines: [{ stat: "global_weight_norm", colour: 1 }] },"""
CHART_TEST = """
test("the weights have a panel", () => {
  expect(titles(curve("global_weight_norm", [1, 2]))).toEqual(["Weights"]);
});
"""
HEATMAP_ENTRY = """
  {
    stat: "microbatch_norm",
    label: "Micro-batch norm",
    keeps: "max",
    details: ["mean"],
    isOfClipping: false,
  },
""".strip("\n")
HEATMAP_TEST = """
it("shows micro-batches whether or not something is clipped", () => {
  expect([true, false].map((clips) => isInformative("microbatch_norm", clips))).toEqual([true, true]);
});
"""


def test_a_chart_of_a_new_statistic_is_drawn(checkout):
    add_global_weight_norm(checkout)
    write_protocol(checkout)
    checkout.add_entry("frontend/src/charts/panels.ts", "CHARTS", CHART)
    checkout.append("frontend/test/charts/panels.test.ts", CHART_TEST)
    checkout.add_entry("frontend/src/heatmap_stats.ts", "HEATMAP_STATS", HEATMAP_ENTRY)
    checkout.append("frontend/test/heatmap_stats.test.ts", HEATMAP_TEST)
    for script in ("lint", "typecheck", "test"):
        checkout.run("npm", "--prefix", "frontend", "run", script)
    assert_only_named_files_changed(checkout, "Add a statistic", "Add a chart")
