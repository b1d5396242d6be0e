"""Micro-batches in runs of a session: their gradients are fetched, added up anywhere, and applied."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NanWatchHook, NonFiniteError, Watch, load_batch
from tb_nanwatch.errors import SetupError
from tests.watch.drivers.session_v1.graphs import EXACT, Critic, Normalised, same, v1, variables_of

MICROBATCHES = 3


class Fed:
    """A critic whose gradients are fetched, added up by NumPy, and fed back."""

    def __init__(self, watch, *, scale=1 / MICROBATCHES, rate=0.01):
        self.critic, self.watch, self.scale = Critic(tf.nn.tanh), watch, scale
        variables = [variable for _, variable in self.critic.pairs]
        self.fed = [
            v1.placeholder(tf.float32, variable.shape, name=f"total_{n}") for n, variable in enumerate(variables)
        ]
        pairs = watch.accumulate(self.critic.pairs, loss=self.critic.loss)
        self.fetches = [gradient for gradient, _ in pairs]
        self.train = watch.apply_gradients(
            v1.train.GradientDescentOptimizer(rate), zip(self.fed, variables, strict=True)
        )

    def step(self, run, feeds=None, *, times=1.0):
        parts = [run(self.fetches, feed) for feed in feeds or [self.critic.feed] * MICROBATCHES]
        totals = [np.nan_to_num(np.sum(part, axis=0)) * self.scale for part in zip(*parts, strict=True)]
        run(self.train, {fed: total * np.float32(times) for fed, total in zip(self.fed, totals, strict=True)})
        return parts


@pytest.fixture(params=["session", "hook"])
def run(request):
    """Return a function that runs a watched session, by either of the two ways."""

    def started(watch):
        if request.param == "hook":
            return v1.train.MonitoredTrainingSession(hooks=[NanWatchHook(watch)]).run
        session = v1.Session()
        session.run(v1.global_variables_initializer())
        return lambda *arguments: watch.session_run(session, *arguments)

    return started


def test_norms_are_of_the_total_and_of_one_micro_batch(run, tmp_path, read):
    fed = Fed(Watch(tmp_path))
    session = run(fed.watch)
    parts = fed.step(session)
    for number in (2, 5):
        session(fed.critic.loss, fed.critic.feed)
        fed.step(session, [fed.critic.feed] * number)
    fed.watch.close()
    back = read(tmp_path)
    assert back.column("microbatches").ravel().tolist() == [3, 2, 5]
    squares = [[np.sum(np.square(gradient)) for gradient in part] for part in parts]
    assert back.column("microbatch_norm")[0] == pytest.approx(np.sqrt(np.mean(squares, axis=0)), rel=1e-5)
    assert back.column("grad_norm")[0] == pytest.approx(back.column("microbatch_norm")[0], rel=1e-5)
    assert back.verdict.warnings == ()


def test_a_total_that_grows_with_the_number_of_micro_batches_gives_a_warning(run, tmp_path, read):
    fed = Fed(Watch(tmp_path), scale=1.0)
    session = run(fed.watch)
    for number in (2, 4) * 20:
        fed.step(session, [fed.critic.feed] * number)
    fed.watch.close()
    (warning,) = read(tmp_path).verdict.warnings
    assert (warning.kind, warning.first_step) == ("accumulated-sum", 0)
    assert "3 times the norm of one" in warning.text  # midway between 2 and 4


def test_the_verdict_names_the_micro_batch_that_was_bad_although_the_total_is_finite(run, tmp_path, read):
    fed = Fed(Watch(tmp_path))
    session = run(fed.watch)
    fed.step(session)
    weights = session(v1.trainable_variables())
    with pytest.raises(NonFiniteError, match=r"^Step 1: \+Inf first appeared in the output of Square.*micro-batch 1;"):
        fed.step(session, [fed.critic.feed, fed.critic.feed_with(3, 1e30), fed.critic.feed_with(5, 1e30)])
    assert all(np.array_equal(a, b) for a, b in zip(weights, session(v1.trainable_variables()), strict=True))
    fed.watch.close()
    first = read(tmp_path).verdict.first
    assert (first.step, first.microbatch, first.phase, first.op.type) == (1, 1, "loss", "Square")
    assert (first.samples, first.source.text.endswith("# origin: square")) == ((3,), True)
    assert load_batch(tmp_path / first.batch).args[0]["r:0"][3] == np.float32(1e30)


def test_a_micro_batch_that_was_bad_is_recorded_although_the_total_is_finite(run, tmp_path, read):
    fed = Fed(Watch(tmp_path, policy="record"))
    session = run(fed.watch)
    for poison in (None, 1e30, None, 1e30):
        fed.step(session, [fed.critic.feed, fed.critic.feed if poison is None else fed.critic.feed_with(3, poison)])
    fed.watch.close()
    verdict = read(tmp_path).verdict
    assert (verdict.first.step, verdict.first.microbatch, verdict.first.phase) == (1, 1, "loss")
    assert verdict.steps_seen == 4


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_a_total_that_overflows_is_not_blamed_on_a_micro_batch(tmp_path, read):
    fed = Fed(Watch(tmp_path), scale=1e3)
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        with pytest.raises(NonFiniteError):
            fed.step(lambda *arguments: fed.watch.session_run(session, *arguments), times=3e38)
    fed.watch.close()
    first = read(tmp_path).verdict.first
    assert (first.step, first.microbatch, first.phase, first.op) == (0, None, "backward", None)
    assert first.variable is not None
    assert first.samples == ()


def test_a_variable_that_an_update_made_non_finite_is_not_blamed_on_a_micro_batch(run, tmp_path, read):
    fed = Fed(Watch(tmp_path), rate=1e30)
    session = run(fed.watch)
    fed.step(session, times=0)
    fed.step(session, times=1e20)
    with pytest.raises(NonFiniteError, match="Step 1"):
        fed.step(session, times=0)
    fed.watch.close()
    first = read(tmp_path).verdict.first
    assert (first.step, first.microbatch, first.phase, first.evidence) == (1, None, "update", "replay")
    assert first.op.type == "ResourceApplyGradientDescent"


def test_the_batch_of_a_bad_micro_batch_is_as_it_was_fed(run, tmp_path):
    fed = Fed(Watch(tmp_path))
    session, returns = run(fed.watch), fed.critic.returns.copy()
    returns[3] = 1e30
    parts = session(fed.fetches, {fed.critic.x: fed.critic.data, fed.critic.r: returns})
    returns[:] = 0.0
    with pytest.raises(NonFiniteError) as caught:
        session(fed.train, dict(zip(fed.fed, map(np.nan_to_num, parts), strict=True)))
    assert caught.value.verdict.first.samples == (3,)
    assert load_batch(tmp_path / "batches" / "step-0.npz").args[0]["r:0"][3] == np.float32(1e30)


def test_a_micro_batch_without_a_loss_is_known_by_its_gradients(tmp_path):
    critic, watch = Critic(tf.nn.tanh), Watch(tmp_path, replay=False)
    variables = [variable for _, variable in critic.pairs]
    watch.accumulate(critic.pairs)
    zeros = [tf.zeros(variable.shape) for variable in variables]
    train = watch.apply_gradients(v1.train.GradientDescentOptimizer(0.01), zip(zeros, variables, strict=True))
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        watch.session_run(session, critic.raw, critic.feed_with(3, np.inf))
        watch.session_run(session, critic.raw, critic.feed_with(3, np.nan))
        with pytest.raises(NonFiniteError) as caught:
            watch.session_run(session, train)
        first = caught.value.verdict.first
        assert (first.step, first.microbatch, first.phase, first.kind) == (0, 0, "input", "pos_inf")
        assert "gradient" in {finding.role for finding in caught.value.alert.findings}
        # The next update has no micro-batches: those before belong to an update that is over.
        watch.session_run(session, train)
    watch.close()


def test_gradients_may_be_added_up_in_variables(tmp_path, read):
    critic, watch = Critic(tf.nn.tanh), Watch(tmp_path, policy="skip")
    variables = [variable for _, variable in critic.pairs]
    sums = [v1.Variable(tf.zeros(variable.shape), trainable=False, use_resource=True) for variable in variables]
    pairs = watch.accumulate(critic.pairs, loss=critic.loss)
    add = [total.assign_add(gradient) for total, (gradient, _) in zip(sums, pairs, strict=True)]
    means = [(total / 2, variable) for total, variable in zip(sums, variables, strict=True)]
    train = watch.apply_gradients(v1.train.GradientDescentOptimizer(0.01), means)
    clear = [total.assign(tf.zeros_like(total)) for total in sums]
    with v1.Session(config=EXACT) as session:
        session.run(v1.global_variables_initializer())
        for step in range(4):
            before = session.run(variables)
            watch.session_run(session, add, critic.feed)
            watch.session_run(session, add, critic.feed_with(0, np.nan) if step == 2 else critic.feed)
            watch.session_run(session, train)
            session.run(clear)
            stayed = all(np.array_equal(a, b) for a, b in zip(before, session.run(variables), strict=True))
            assert stayed == (step == 2)
    watch.close()
    back = read(tmp_path)
    assert (back.verdict.first.step, back.verdict.first.microbatch, back.verdict.skipped_steps) == (2, 1, 1)
    assert back.column("microbatches").ravel().tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("use_resource", [True, False], ids=["resource", "reference"])
@pytest.mark.parametrize("policy", ["skip", "record"])
def test_writes_in_the_forward_pass_of_a_bad_micro_batch_are_restored_unless_it_is_recorded(
    policy, use_resource, tmp_path
):
    net, watch = Normalised(use_resource=use_resource), Watch(tmp_path, policy=policy)
    variables = [variable for _, variable in net.pairs]
    pairs = watch.accumulate(net.pairs, loss=net.loss)
    fed = [v1.placeholder(tf.float32, variable.shape) for variable in variables]
    train = watch.apply_gradients(v1.train.GradientDescentOptimizer(0.01), zip(fed, variables, strict=True))
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        gradients, _ = watch.session_run(session, [[gradient for gradient, _ in pairs], net.updates], net.feed())
        watch.session_run(session, train, dict(zip(fed, gradients, strict=True)))
        before = variables_of(session)
        watch.session_run(session, [pairs[0][0], pairs[1][0], net.updates], net.feed(poison=np.nan))
        assert same(before, variables_of(session)) == (policy == "skip")
    watch.close()


class TestWhatIsRefused:
    def test_a_second_accumulate(self, tmp_path):
        critic, watch = Critic(tf.nn.tanh), Watch(tmp_path)
        watch.accumulate(critic.pairs)
        with pytest.raises(SetupError, match="given one accumulate in a graph of TensorFlow 1, before apply_gradients"):
            watch.accumulate(critic.pairs)

    def test_a_total_of_the_same_run(self, tmp_path):
        critic, watch = Critic(tf.nn.tanh), Watch(tmp_path)
        watch.accumulate(critic.pairs)
        with pytest.raises(SetupError, match="a total that was added up in earlier runs"):
            watch.apply_gradients(v1.train.GradientDescentOptimizer(0.01), critic.pairs)

    def test_a_watched_tensor_of_a_micro_batch(self, tmp_path):
        watch = Watch(tmp_path)
        with pytest.warns(UserWarning, match="does not watch tensor 'hidden': it is of a micro-batch"):
            fed = _watching_hidden(watch)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            fed.step(lambda *arguments: watch.session_run(session, *arguments))
        watch.close()


def _watching_hidden(watch):
    watch.tensor("hidden", v1.placeholder(tf.float32, [2]) * 2.0)
    return Fed(watch)
