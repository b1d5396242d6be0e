"""A step of a TensorFlow 1 graph, watched in a session: what is recorded, what is withheld, what is left alone."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NanWatchHook, NonFiniteError, Watch, load_batch
from tb_nanwatch.errors import SetupError
from tests.watch.drivers.session_v1.graphs import EXACT, Critic, same, v1, variables_of

OPTIMIZERS = {
    "rmsprop": lambda: v1.train.RMSPropOptimizer(0.01),
    "adam": lambda: v1.train.AdamOptimizer(0.01),
    "momentum": lambda: v1.train.MomentumOptimizer(0.01, 0.9),
    "sgd": lambda: v1.train.GradientDescentOptimizer(0.01),
}


@pytest.fixture(params=["resource", "reference"])
def critic(request):
    return Critic(tf.nn.tanh, use_resource=request.param == "resource")


def watched(critic, tmp_path, *, optimizer=None, **options):
    watch = Watch(tmp_path, **options)
    step = v1.train.get_or_create_global_step()
    optimizer = optimizer or v1.train.RMSPropOptimizer(0.01)
    train = watch.apply_gradients(optimizer, critic.clipped, raw=critic.raw, loss=critic.loss, global_step=step)
    return watch, train


def trained(build, *, steps=200, config=EXACT):
    """Return every variable after a run of a new graph; ``build`` returns a function that runs one step."""
    with tf.Graph().as_default(), v1.Session(config=config) as session:
        step = build()
        session.run(v1.global_variables_initializer())
        for _ in range(steps):
            step(session)
        return variables_of(session)


class TestEveryWayToRun:
    @pytest.fixture(params=["session", "hook"])
    def session(self, request):
        def made(watch):
            if request.param == "hook":
                return v1.train.MonitoredTrainingSession(hooks=[NanWatchHook(watch)])
            session = v1.Session()
            session.run(v1.global_variables_initializer())
            bare = session.run
            session.run = lambda *args, **kwargs: (
                bare(*args, **kwargs) if self.busy else self.watched_run(session, watch, *args, **kwargs)
            )
            return session

        self.busy = False
        return made

    def watched_run(self, session, watch, *args, **kwargs):
        self.busy = True
        try:
            return watch.session_run(session, *args, **kwargs)
        finally:
            self.busy = False

    def test_a_finite_run_records_every_step_with_the_norms_that_numpy_finds(self, critic, session, tmp_path, read):
        watch, train = watched(critic, tmp_path, window=8)
        losses, norms = [], []
        with session(watch) as running:
            for _ in range(20):
                loss, gradients, _ = running.run([critic.loss, critic.raw, train], critic.feed)
                losses.append(loss)
                norms.append([np.linalg.norm(gradient) for gradient in gradients])
        watch.close()
        back = read(tmp_path)
        assert back.verdict.status == "finite"
        assert back.session.series.first_step.tolist() == list(range(20))
        np.testing.assert_allclose(back.column("loss")[:, 0], losses, rtol=1e-5)
        np.testing.assert_allclose(back.column("grad_norm"), norms, rtol=1e-4)
        np.testing.assert_allclose(back.column("clipped_norm"), np.minimum(norms, 5.0), rtol=1e-4)
        assert [variable.dtype for variable in back.session.header.variables] == ["float32"] * 9

    def test_a_bad_step_raises_with_its_operation_and_leaves_every_variable_as_it_was(
        self, critic, session, tmp_path, read
    ):
        watch, train = watched(critic, tmp_path)
        message = r"^Step 5: \+Inf first appeared in the output of Square"
        with session(watch) as running:
            for _ in range(5):
                running.run(train, critic.feed)
            before = variables_of(running)
            with pytest.raises(NonFiniteError, match=message) as caught:
                running.run(train, critic.feed_with(3, 1e30))
            after = variables_of(running)
        assert same(before, after)
        assert after["global_step:0"] == 5
        watch.close()
        back = read(tmp_path)
        first = back.verdict.first
        assert replace(first, batch=None) == replace(caught.value.verdict.first, batch=None)
        assert (first.step, first.phase, first.kind, first.evidence) == (5, "loss", "pos_inf", "replay")
        assert (first.op.type, first.samples) == ("Square", (3,))
        assert (Path(first.source.file).name, first.source.text.endswith("# origin: square")) == ("graphs.py", True)
        assert back.verdict.steps_seen == 6
        batch = load_batch(tmp_path / first.batch)
        assert {name: value.shape for name, value in batch.args[0].items()} == {"x:0": (16, 4), "r:0": (16,)}
        assert batch.args[0]["r:0"][3] == np.float32(1e30)

    def test_runs_that_do_not_train_are_left_alone(self, critic, session, tmp_path, read):
        watch, train = watched(critic, tmp_path)
        with session(watch) as running:
            for _ in range(3):
                running.run(train, critic.feed)
                assert np.isinf(running.run(critic.loss, critic.feed_with(0, 1e30)))
                running.run({"loss": critic.loss}, critic.feed)
        watch.close()
        assert read(tmp_path).verdict.steps_seen == 3


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("use_resource", [True, False], ids=["resource", "reference"])
def test_a_watched_run_trains_like_a_bare_run_bit_for_bit(name, use_resource, tmp_path):
    def bare():
        critic = Critic(tf.nn.tanh, use_resource=use_resource)
        train = OPTIMIZERS[name]().apply_gradients(critic.clipped, global_step=v1.train.get_or_create_global_step())
        return lambda session: session.run(train, critic.feed)

    def seen():
        critic = Critic(tf.nn.tanh, use_resource=use_resource)
        watch, train = watched(critic, tmp_path, optimizer=OPTIMIZERS[name]())
        return lambda session: watch.session_run(session, train, critic.feed)

    first, second = trained(bare), trained(seen)
    assert first["global_step:0"] == 200
    assert same(first, second)


def test_with_the_default_graph_optimiser_weights_agree_to_a_millionth(tmp_path):
    def bare():
        critic = Critic(tf.nn.tanh)
        train = v1.train.RMSPropOptimizer(0.01).apply_gradients(critic.clipped)
        return lambda session: session.run(train, critic.feed)

    def seen():
        critic = Critic(tf.nn.tanh)
        watch = Watch(tmp_path)
        train = watch.apply_gradients(v1.train.RMSPropOptimizer(0.01), critic.clipped, raw=critic.raw, loss=critic.loss)
        return lambda session: watch.session_run(session, train, critic.feed)

    first, second = trained(bare, config=None), trained(seen, config=None)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_allclose(second[name], value, rtol=1e-6, atol=1e-7)


def test_nothing_is_added_to_the_variables_of_the_graph(critic, tmp_path):
    watched(critic, tmp_path, optimizer=v1.train.GradientDescentOptimizer(0.1))
    assert len(v1.global_variables()) == 10
    assert v1.local_variables() == []


def test_the_initialization_of_slots_is_not_a_step(critic, tmp_path):
    _, train = watched(critic, tmp_path)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        assert train in v1.get_collection(v1.GraphKeys.TRAIN_OP)
        assert session.run(v1.train.get_global_step()) == 0


def test_operations_that_wait_for_the_update_also_run_after_a_bad_step(critic, tmp_path):
    watch, train = watched(critic, tmp_path, policy="skip")
    with tf.control_dependencies([train]):
        after = tf.identity(critic.loss)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        assert np.isfinite(watch.session_run(session, after, critic.feed))
        assert np.isinf(watch.session_run(session, after, critic.feed_with(0, 1e30)))
        assert session.run(v1.train.get_global_step()) == 1


def test_skipping_a_poisoned_batch_trains_as_if_it_had_not_been_there(critic, tmp_path, read):
    watch, train = watched(critic, tmp_path, policy="skip")
    with v1.Session(config=EXACT) as session:
        session.run(v1.global_variables_initializer())
        for number in range(21):
            watch.session_run(session, train, critic.feed_with(2, 1e30) if number == 7 else critic.feed)
        skipped = variables_of(session)
    watch.close()
    with tf.Graph().as_default():
        bare = Critic(tf.nn.tanh, use_resource=critic.use_resource)
        _, train = watched(bare, tmp_path / "bare")
        with v1.Session(config=EXACT) as session:
            session.run(v1.global_variables_initializer())
            for _ in range(20):
                session.run(train, bare.feed)
            assert same(variables_of(session), skipped)
    verdict = read(tmp_path).verdict
    assert (verdict.first.step, verdict.first.op.type, verdict.skipped_steps) == (7, "Square", 1)


def test_a_recorded_run_goes_on_and_reports_its_first_bad_step(critic, tmp_path, read):
    watch, train = watched(critic, tmp_path, policy="record")
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        for number in range(6):
            watch.session_run(session, train, critic.feed_with(2, 1e30) if number == 3 else critic.feed)
        assert session.run(v1.train.get_global_step()) == 6
    watch.close()
    back = read(tmp_path)
    assert (back.verdict.first.step, back.verdict.first.phase, back.verdict.first.evidence) == (3, "loss", "records")
    assert len(back.session.alerts) == 1
    assert load_batch(tmp_path / back.verdict.first.batch).args[0]["r:0"][2] == np.float32(1e30)


def test_training_may_go_on_after_the_error_is_caught(critic, tmp_path, read):
    watch, train = watched(critic, tmp_path)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        for bad in (False, True, False, True):
            try:
                watch.session_run(session, train, critic.feed_with(0, 1e30) if bad else critic.feed)
            except NonFiniteError as error:
                last = error
        assert session.run(v1.train.get_global_step()) == 2
    # A withheld step does not advance the global step, and its row has a number of its own.
    assert (last.alert.step, last.verdict.first.op.type) == (3, "Square")
    watch.close()
    assert [alert.step for alert in read(tmp_path).session.alerts if len(alert.window)] == [1, 3]


def test_a_step_of_the_users_own_numbers_the_rows(critic, tmp_path, read):
    step = v1.get_variable("my_step", [], tf.int32, initializer=v1.constant_initializer(100), trainable=False)
    watch = Watch(tmp_path, step=step)
    with tf.control_dependencies(
        [watch.apply_gradients(v1.train.AdamOptimizer(), critic.clipped, raw=critic.raw, loss=critic.loss)]
    ):
        train = tf.group(v1.assign_add(step, 10))
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        for _ in range(4):
            watch.session_run(session, train, critic.feed)
    watch.close()
    assert read(tmp_path).session.series.first_step.tolist() == [100, 110, 120, 130]


def test_a_variable_that_the_last_update_made_non_finite_is_reported_when_the_session_ends(tmp_path, read):
    weight = v1.get_variable("layer/w", [], initializer=v1.ones_initializer())
    x = v1.placeholder(tf.float32, [], name="x")
    watch = Watch(tmp_path)
    train = watch.apply_gradients(v1.train.GradientDescentOptimizer(1e30), [(x * 1e10, weight)], loss=weight)
    session = v1.train.MonitoredTrainingSession(hooks=[NanWatchHook(watch)])
    session.run(train, {x: 0.0})
    session.run(train, {x: 1.0})
    with pytest.raises(NonFiniteError, match=r"^Step 1: -Inf first appeared"):
        session.close()
    watch.close()
    first = read(tmp_path).verdict.first
    assert (first.step, first.phase, first.layer, first.variable) == (1, "update", "layer", "layer/w")


def test_rows_reach_the_log_though_the_session_is_closed_first(critic, tmp_path, read):
    watch, train = watched(critic, tmp_path)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        for _ in range(7):
            watch.session_run(session, train, critic.feed)
    watch.close()
    assert read(tmp_path).verdict.steps_seen == 7


def test_a_program_without_eager_execution_is_watched_too(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import numpy as np, tensorflow as tf, tb_nanwatch
v1 = tf.compat.v1
v1.disable_v2_behavior()
x = v1.placeholder(tf.float32, [None], name="x")
w = v1.get_variable("layer/w", [], initializer=v1.ones_initializer())
loss = tf.reduce_mean(tf.math.log(w * x))
optimizer = v1.train.AdamOptimizer(0.1)
watch = tb_nanwatch.Watch({str(tmp_path / "log")!r})
step = v1.train.get_or_create_global_step()
train = watch.apply_gradients(optimizer, optimizer.compute_gradients(loss), loss=loss, global_step=step)
try:
    with v1.train.MonitoredTrainingSession(hooks=[tb_nanwatch.NanWatchHook(watch)]) as session:
        for _ in range(5):
            session.run(train, {{x: [1.0, 2.0]}})
        session.run(train, {{x: [1.0, 0.0]}})
except tb_nanwatch.NonFiniteError as error:
    first = error.verdict.first
    print(first.step, first.phase, first.op.type, first.source.line, first.batch, first.samples)
"""
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "5 loss Log 7 log/batches/step-5.npz (1,)"


class TestWhatCannotBeWatched:
    def test_a_second_step_is_refused(self, critic, tmp_path):
        watch, _ = watched(critic, tmp_path)
        with pytest.raises(SetupError, match="one apply_gradients in a graph of TensorFlow 1"):
            watch.apply_gradients(v1.train.AdamOptimizer(), critic.pairs)

    def test_a_step_inside_a_branch_is_refused(self, critic, tmp_path):
        watch = Watch(tmp_path)
        with pytest.raises(SetupError, match="must stand in the graph of a session itself"):
            tf.cond(
                critic.loss > 0,
                lambda: watch.apply_gradients(v1.train.AdamOptimizer(), critic.pairs),
                tf.no_op,
            )

    def test_a_hook_without_a_step_is_refused(self, tmp_path):
        with pytest.raises(SetupError, match=r"watch\.apply_gradients must be called"):
            v1.train.MonitoredTrainingSession(hooks=[NanWatchHook(Watch(tmp_path))])

    def test_a_run_before_the_step_is_built_is_refused(self, critic, tmp_path):
        with v1.Session() as session, pytest.raises(SetupError, match=r"watch\.apply_gradients must be called"):
            Watch(tmp_path).session_run(session, critic.loss)


@pytest.mark.parametrize("kind", ["MomentumOptimizer", "AdamOptimizer"])
@pytest.mark.parametrize("is_reference", [False, True])
def test_a_bad_learning_rate_withholds_the_update_and_is_named(tmp_path, kind, is_reference):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.variable_scope("line", use_resource=not is_reference):
        step = v1.train.get_or_create_global_step()
        rate = 0.1 * (1.0 - tf.cast(step, tf.float32) / 2.5) ** 0.9
        optimizer = getattr(v1.train, kind)(rate, *([0.9] if kind == "MomentumOptimizer" else []))
        weight = v1.get_variable("weight", [2], initializer=v1.ones_initializer())
        loss = tf.reduce_sum(tf.square(weight * [0.1, 0.2]))
        watch = Watch(tmp_path)
        train = watch.apply_gradients(optimizer, optimizer.compute_gradients(loss), loss=loss, global_step=step)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            for _ in range(3):
                watch.session_run(session, train)
            before = session.run(weight).tolist()
            with pytest.raises(NonFiniteError, match="The update of step 3 was withheld") as caught:
                watch.session_run(session, train)
            assert session.run(weight).tolist() == before
    first = caught.value.verdict.first
    assert (first.phase, first.op.type) == ("update", "Pow")
    assert first.source.text == "rate = 0.1 * (1.0 - tf.cast(step, tf.float32) / 2.5) ** 0.9"
