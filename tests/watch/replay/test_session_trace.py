"""A bad step of a session's graph, run again: which operation, which line."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NanWatchHook, NonFiniteError, Watch
from tb_nanwatch.schema.records import Entry
from tests.watch.drivers.session_v1 import graphs
from tests.watch.drivers.session_v1.graphs import Critic, Normalised, same, v1, variables_of


@pytest.fixture(autouse=True)
def graph():
    with tf.Graph().as_default() as one:
        yield one


def line_of(marker, module):
    lines = Path(inspect.getfile(module)).read_text(encoding="utf-8").splitlines()
    (number,) = (at for at, text in enumerate(lines, 1) if text.endswith(f"# origin: {marker}"))
    return number


def line(marker):
    return line_of(marker, inspect.getmodule(line))


class Scalar:
    """Weights of a named layer, a placeholder, and a step over any loss of them."""

    def __init__(self, tmp_path, *, use_resource=True, **options):
        self.x = v1.placeholder(tf.float32, [None], name="x")
        with v1.variable_scope("layer", use_resource=use_resource):
            self.w = v1.get_variable("w", [3], initializer=v1.ones_initializer())
        self.watch = Watch(tmp_path, **options)

    def verdict_after(self, loss, feeds, *, optimizer=None, clip=None):
        """Train on each feed in turn, and return the verdict that ended it; ``None`` if nothing did."""
        optimizer = optimizer or v1.train.GradientDescentOptimizer(0.1)
        pairs = optimizer.compute_gradients(loss)
        raw = [gradient for gradient, _ in pairs]
        pairs = [(clip(gradient), variable) for gradient, variable in pairs] if clip else pairs
        train = self.watch.apply_gradients(optimizer, pairs, raw=raw, loss=loss)
        try:
            with v1.train.MonitoredTrainingSession(hooks=[NanWatchHook(self.watch)]) as session:
                for feed in feeds:
                    session.run(train, {self.x: feed})
        except NonFiniteError as error:
            return error.verdict
        finally:
            self.watch.close()
        return None


@pytest.fixture(params=["resource", "reference"])
def scalar(request, tmp_path):
    return Scalar(tmp_path, use_resource=request.param == "resource")


def place(verdict):
    first = verdict.first
    return first.step, first.phase, first.layer, first.op and first.op.type, first.source and first.source.line


@pytest.mark.parametrize("use_resource", [True, False], ids=["resource", "reference"])
def test_the_exploding_critic_is_reported_at_the_step_that_the_bare_run_shows(use_resource, tmp_path, read):
    def step(critic, watch):
        optimizer = v1.train.RMSPropOptimizer(30.0, momentum=0.9)
        if watch is None:
            return optimizer.apply_gradients(critic.clipped)
        return watch.apply_gradients(optimizer, critic.clipped, raw=critic.raw, loss=critic.loss)

    with tf.Graph().as_default(), v1.Session() as session:
        critic = Critic(tf.nn.relu, use_resource=use_resource, layers=6)
        train = step(critic, None)
        session.run(v1.global_variables_initializer())
        runs = [session.run([critic.loss, critic.squares, train], critic.feed) for _ in range(60)]
    truth = next(step for step, (loss, _, _) in enumerate(runs) if np.isinf(loss))
    assert truth > 10
    assert np.isfinite(runs[truth][1]).all()
    critic, watch = Critic(tf.nn.relu, use_resource=use_resource, layers=6), Watch(tmp_path)
    train = step(critic, watch)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        for _ in range(truth):
            watch.session_run(session, train, critic.feed)
        with pytest.raises(NonFiniteError):
            watch.session_run(session, train, critic.feed)
    watch.close()
    verdict = read(tmp_path).verdict
    assert place(verdict) == (truth, "loss", None, "Mean", line_of("mean", graphs))
    assert verdict.first.evidence == "replay"


@pytest.mark.parametrize("layer", ["layer", "log_likelihood"])
def test_an_operation_of_the_forward_pass_is_named_with_its_layer(scalar, layer):
    with tf.name_scope(layer):
        hidden = tf.math.log(scalar.w * scalar.x)  # origin: log
    verdict = scalar.verdict_after(tf.reduce_sum(hidden * scalar.w), [[1, 2, 3], [1, 0, 3]])
    assert place(verdict) == (1, "forward", layer, "Log", line("log"))
    assert verdict.first.samples == (1,)


def test_a_gradient_has_the_line_of_its_forward_operation(scalar):
    root = (scalar.w[0] * scalar.x) ** 0.5  # origin: root
    verdict = scalar.verdict_after(tf.reduce_sum(root), [[1, 2], [1, 0]])
    assert place(verdict)[:2] == (1, "backward")
    assert (verdict.first.source.line, verdict.first.variable) == (line("root"), "layer/w")


def test_a_clip_that_overflows_is_named_as_a_clip(scalar):
    def clip(gradient):
        return gradient * tf.reduce_sum(gradient)  # origin: clip

    verdict = scalar.verdict_after(tf.reduce_sum(scalar.w) * scalar.x[0], [[1], [1e25]], clip=clip)
    assert (*place(verdict), verdict.first.variable) == (1, "clip", None, "Mul", line("clip"), "layer/w")


def test_a_bad_batch_is_named_by_its_placeholder_and_samples(scalar):
    verdict = scalar.verdict_after(tf.reduce_sum(scalar.w[0] * scalar.x), [[1, 2, 3], [1, np.nan, 3]])
    assert (*place(verdict), verdict.first.tensor, verdict.first.samples) == (1, "input", None, None, None, "x", (1,))


def test_a_constant_made_of_data_is_named_as_the_graph_names_it(scalar):
    weights = tf.constant(np.array([1, np.nan, 2], "float32"), name="class_weights")  # origin: constant
    verdict = scalar.verdict_after(tf.reduce_sum(scalar.w * scalar.x * weights), [[1, 2, 3]])
    assert place(verdict) == (0, "input", None, None, line("constant"))
    first = verdict.first
    assert (first.tensor, first.entry) == ("class_weights", Entry("constant", (3,), ((1,),)))


def test_an_embedding_matrix_that_is_a_constant_has_elements_and_no_samples(scalar):
    vectors = np.zeros((30, 3), "float32")
    vectors[7, 2] = np.nan
    rows = tf.nn.embedding_lookup(tf.constant(vectors, name="vectors"), tf.cast(scalar.x, tf.int32))
    first = scalar.verdict_after(tf.reduce_sum(rows * scalar.w), [[1, 2], [1, 7]]).first
    assert (first.step, first.phase, first.tensor, first.samples) == (1, "input", "vectors", ())
    assert first.entry == Entry("constant", (30, 3), ((7, 2),))


def test_the_samples_of_a_sparse_placeholder_are_rows_of_the_dense_tensor(scalar):
    rows = v1.sparse_placeholder(tf.float32, name="rows")
    loss = tf.reduce_sum(tf.sparse.sparse_dense_matmul(rows, scalar.w[:2, None]))
    optimizer = v1.train.GradientDescentOptimizer(0.1)
    train = scalar.watch.apply_gradients(optimizer, optimizer.compute_gradients(loss), loss=loss)
    fed = v1.SparseTensorValue([[0, 0], [0, 1], [3, 1]], np.array([1, 2, np.nan], "float32"), [5, 2])
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        with pytest.raises(NonFiniteError) as caught:
            scalar.watch.session_run(session, train, {rows: fed})
    first = caught.value.verdict.first
    assert (first.phase, first.tensor, first.samples) == ("input", "rows/values", (3,))


def test_a_variable_that_begins_bad_is_named(tmp_path):
    scalar = Scalar(tmp_path)
    with v1.variable_scope("head"):
        bad = v1.get_variable("w", [], initializer=v1.constant_initializer(np.nan))
    verdict = scalar.verdict_after(tf.reduce_sum(scalar.w * bad) * scalar.x[0], [[1]])
    assert (*place(verdict), verdict.first.variable) == (0, "weights", "head", None, None, "head/w")


def test_an_operation_that_counts_the_elements_equal_to_a_maximum_is_no_origin(scalar):
    with v1.variable_scope("layer"):
        scale = v1.get_variable("scale", [3], initializer=v1.constant_initializer([1.0, np.nan, 1.0]), trainable=False)
    scaled = scalar.w * scale * scalar.x
    verdict = scalar.verdict_after(tf.reduce_mean(scaled) + tf.reduce_max(scaled), [[1, 2, 3]])
    assert (*place(verdict), verdict.first.variable) == (0, "state", "layer", None, None, "layer/scale")
    assert verdict.other_chains == ()


def test_no_operation_of_a_finite_loss_is_named(scalar):
    total = tf.exp(scalar.w[0] * scalar.x)  # origin: exp that a division hides
    verdict = scalar.verdict_after(tf.reduce_mean(1.0 / total), [[1, 2], [1, 90]])
    assert place(verdict) == (1, "forward", None, "Exp", line("exp that a division hides"))
    assert verdict.first.kind == "pos_inf"
    assert "the loss" not in verdict.text
    assert "kept it from the loss, such as a division by Inf, which gives 0" in verdict.notes[0]


def test_an_update_that_makes_a_variable_non_finite_is_reported_at_its_own_step(scalar):
    optimizer = v1.train.MomentumOptimizer(1e30, 0.9)
    loss = tf.reduce_sum(scalar.w) * scalar.x[0]
    verdict = scalar.verdict_after(loss, [[0], [1e20], [0]], optimizer=optimizer)
    assert verdict.first.op.type.removeprefix("Resource") == "ApplyMomentum"
    assert (verdict.first.step, verdict.first.phase, verdict.first.variable) == (1, "update", "layer/w")
    assert verdict.first.evidence == "replay"


def test_a_rate_that_overflows_is_named_before_it_reaches_the_weights(scalar):
    optimizer = v1.train.GradientDescentOptimizer(scalar.x[0] * 1e30)  # origin: rate
    verdict = scalar.verdict_after(tf.reduce_sum(scalar.w), [[0], [1e20], [0]], optimizer=optimizer)
    assert place(verdict) == (1, "update", None, "Mul", line("rate"))


def test_an_update_whose_rate_is_not_known_any_more_names_no_operation(scalar):
    # The rate is finite, its product with the gradient is not.
    optimizer = v1.train.GradientDescentOptimizer(scalar.x[0] * 1e18)
    verdict = scalar.verdict_after(tf.reduce_sum(100 * scalar.w), [[0], [1e20], [0]], optimizer=optimizer)
    assert (*place(verdict), verdict.first.variable) == (1, "update", "layer", None, None, "layer/w")


@pytest.mark.parametrize("v2", [True, False], ids=["v2", "v1"])
class TestControlFlow:
    @pytest.fixture(autouse=True)
    def control_flow(self, v2):
        was_v2 = v1.control_flow_v2_enabled()
        (v1.enable_control_flow_v2 if v2 else v1.disable_control_flow_v2)()
        yield
        (v1.enable_control_flow_v2 if was_v2 else v1.disable_control_flow_v2)()

    def test_an_operation_in_a_branch_is_named_where_branches_are_part_of_the_graph(self, v2, tmp_path):
        scalar = Scalar(tmp_path)
        value = tf.cond(
            scalar.x[0] < 1,
            lambda: tf.math.log(scalar.w * scalar.x[0]),  # origin: branch
            lambda: scalar.w,
        )
        verdict = scalar.verdict_after(tf.reduce_sum(value * scalar.w), [[1], [0]])
        assert place(verdict)[:2] == (1, "forward")
        if v2:
            assert verdict.first.op is None
            assert "inside a loop or a function" in " ".join(verdict.notes)
        else:
            assert (verdict.first.op.type, verdict.first.source.line) == ("Log", line("branch"))

    def test_no_operation_is_named_for_what_went_bad_inside_a_loop(self, v2, tmp_path):
        scalar = Scalar(tmp_path)
        _, value = tf.while_loop(  # origin: loop
            lambda number, _: number < 3, lambda number, value: (number + 1, tf.math.log(value)), (0, scalar.w)
        )
        verdict = scalar.verdict_after(tf.reduce_sum(value * scalar.x[0]), [[1]])
        assert (verdict.first.step, verdict.first.op, verdict.first.source.line) == (0, None, line("loop"))
        assert "inside a loop or a function" in " ".join(verdict.notes)

    def test_a_bad_value_that_entered_a_loop_is_followed_past_it(self, v2, tmp_path):
        scalar = Scalar(tmp_path)
        root = tf.math.log(scalar.w * scalar.x[0])  # origin: before
        _, value = tf.while_loop(
            lambda number, _: number < 3, lambda number, value: (number + 1, value * 2.0), (0, root)
        )
        verdict = scalar.verdict_after(tf.reduce_sum(value * scalar.w[0]), [[1], [0]])
        assert (verdict.first.op.type, verdict.first.source.line) == ("Log", line("before"))


def test_a_masked_infinity_is_no_origin(scalar):
    mask = scalar.x > 0
    masked = tf.where(mask, scalar.w, tf.fill([3], -np.inf))
    loss = tf.reduce_sum(tf.nn.softmax(masked) * scalar.w)
    assert scalar.verdict_after(loss, [[1, 1, 0], [1, 0, 1]]) is None


def test_a_batch_from_an_iterator_inside_a_function_cannot_be_given_again_and_is_not_taken_twice(tmp_path):
    watch = Watch(tmp_path)
    data = tf.data.Dataset.from_tensor_slices([1.0, 0.0, 7.0])
    iterator = v1.data.make_one_shot_iterator(data)
    element = tf.function(iterator.get_next)()
    w = v1.get_variable("layer/w", [], initializer=v1.ones_initializer())
    loss = tf.math.log(element * w)
    optimizer = v1.train.GradientDescentOptimizer(0.1)
    train = watch.apply_gradients(optimizer, optimizer.compute_gradients(loss), loss=loss)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        watch.session_run(session, train)
        with pytest.raises(NonFiniteError, match=r"^Step 1: -Inf first appeared in the loss") as caught:
            watch.session_run(session, train)
        assert session.run(element) == 7.0
    assert "it runs IteratorGetNext, which would return other values in a second run." in " ".join(
        caught.value.verdict.notes
    )


def test_a_value_that_is_drawn_anew_is_not_named_as_the_cause(scalar):
    # A draw that gives the first time what no other does, where no session can feed it.
    calls = []

    def once(_):
        calls.append(1)
        return np.float32(np.nan if len(calls) == 1 else 1)

    @tf.function
    def drawn():
        return tf.reshape(tf.numpy_function(once, [v1.random_uniform([], seed=1)], tf.float32), [])

    damaged = drawn()
    verdict = scalar.verdict_after(tf.reduce_sum(scalar.w) * damaged + 0 * scalar.x[0], [[1]])
    assert (verdict.first.op, verdict.first.evidence) == (None, "records")
    assert "RandomUniform" in " ".join(verdict.notes)


@pytest.mark.parametrize("replay", [True, False])
def test_a_fed_gradient_belongs_to_the_backward_pass(replay, tmp_path, read):
    critic, watch = Critic(tf.nn.tanh), Watch(tmp_path, replay=replay)
    variables = [variable for _, variable in critic.pairs]
    fed = [v1.placeholder(tf.float32, variable.shape, name=f"mean_{at}") for at, variable in enumerate(variables)]
    clipped, _ = tf.clip_by_global_norm(fed, 5.0)
    train = watch.apply_gradients(v1.train.AdamOptimizer(), zip(clipped, variables), raw=fed)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        for number in range(4):
            parts = [session.run(critic.raw, critic.feed) for _ in range(3)]
            means = [np.mean(part, axis=0) for part in zip(*parts)]
            if number == 3:
                means[4][2] = np.nan
                with pytest.raises(NonFiniteError, match="Step 3"):
                    watch.session_run(session, train, dict(zip(fed, means)))
            else:
                watch.session_run(session, train, dict(zip(fed, means)))
    watch.close()
    first = read(tmp_path).verdict.first
    assert (first.step, first.phase, first.layer, first.variable) == (3, "backward", "l2", "l2/g")
    assert first.batch == "batches/step-3.npz"


def test_a_value_that_is_fed_for_an_operation_is_the_batch(scalar):
    hidden = tf.multiply(scalar.x, 2.0, name="hidden")
    loss = tf.reduce_sum(scalar.w[0] * hidden)
    optimizer = v1.train.GradientDescentOptimizer(0.1)
    train = scalar.watch.apply_gradients(optimizer, optimizer.compute_gradients(loss), loss=loss)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        with pytest.raises(NonFiniteError) as caught:
            scalar.watch.session_run(session, train, {"hidden:0": [1.0, np.inf]})
    assert (caught.value.verdict.first.phase, caught.value.verdict.first.tensor) == ("input", "hidden")


@pytest.mark.parametrize("use_resource", [True, False], ids=["resource", "reference"])
def test_a_replay_restores_what_the_forward_pass_writes(use_resource, tmp_path):
    net, watch = Normalised(use_resource=use_resource), Watch(tmp_path)
    with tf.control_dependencies(net.updates):
        loss = tf.identity(net.loss)
    optimizer = v1.train.AdamOptimizer(0.01)
    train = watch.apply_gradients(optimizer, optimizer.compute_gradients(loss), loss=loss)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        watch.session_run(session, train, net.feed())
        before = variables_of(session)
        with pytest.raises(NonFiniteError) as caught:
            watch.session_run(session, train, net.feed(poison=1e38))
        assert same(before, variables_of(session))
    assert caught.value.verdict.first.evidence == "replay"


def test_a_watched_tensor_is_measured_and_named(scalar, read, tmp_path):
    hidden = scalar.watch.tensor("hidden", tf.math.log(scalar.w[0] * scalar.x))
    verdict = scalar.verdict_after(tf.reduce_sum(tf.zeros_like(hidden)) + scalar.w[1], [[1], [0]])
    assert (verdict.first.step, verdict.first.phase, verdict.first.tensor) == (1, "forward", "hidden")
    assert read(tmp_path).session.header.tensors == ("hidden",)
