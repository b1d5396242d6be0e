"""``model.fit`` with the callback, for each way to use it: what is recorded, what is reported, what stays unchanged."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NanWatchCallback, NonFiniteError, load_batch
from tb_nanwatch.errors import SetupError
from tests.watch.drivers.keras.models import (
    BAD_ROW,
    BATCHES,
    INFINITE,
    POISONED,
    SIZE,
    Adversaries,
    Batches,
    Embedded,
    Layers,
    Subclassed,
    Way,
    WithComputedLoss,
    WithTape,
    adam,
    arrays,
    functional,
    generated,
    network,
    state,
    without,
)
from tests.watch.networks import same


def plain(poison=None, **options):
    return Way(network(**options), *arrays(poison))


def built_late(poison=None):
    keras.utils.set_random_seed(3)
    model = Subclassed()
    model.compile(adam(), "mse")
    return Way(model, *arrays(poison))


def adversarial(poison=None, *, run_eagerly=False, **options):
    model = Adversaries(**options)
    model.compile(run_eagerly=run_eagerly)
    x, y = arrays(poison)
    return Way(model, x, y)


def embedded(_=None):
    keras.utils.set_random_seed(3)
    model = Embedded()
    model.compile(adam(), "mse")
    return Way(model, np.random.default_rng(0).integers(0, 20, [BATCHES * SIZE, 5]), arrays()[1])


def in_dictionary(poison=None):
    keras.utils.set_random_seed(3)
    a, b = keras.Input([1], name="a"), keras.Input([2], name="b")
    model = keras.Model({"a": a, "b": b}, Layers.Dense(1, name="head")(Layers.Concatenate()([a, b])))
    model.compile(adam(), "mse")
    x, y = arrays(poison)
    return Way(model, {"a": x[:, :1], "b": x[:, 1:]}, y)


def partly_frozen(poison=None):
    way = plain(poison)
    way.model.get_layer("hidden").trainable = False
    way.model.compile(adam(), "mse")
    return way


def constrained(poison=None):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input([3]), Layers.Dense(8, kernel_constraint="max_norm"), Layers.Dense(1)])
    model.compile(keras.optimizers.AdamW(1e-2, weight_decay=0.1, use_ema=True, ema_overwrite_frequency=2), "mse")
    return Way(model, *arrays(poison))


def of_policy(policy):
    def way(_=None):
        keras.config.set_dtype_policy(policy)
        try:
            return plain()
        finally:
            keras.config.set_dtype_policy("float32")

    return way


def with_weights(poison=None):
    x, y = arrays(poison)
    return Way(network(), x, y, {"sample_weight": np.linspace(0, 1, len(x)).astype("float32")})


def with_classes(_=None):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input([3]), Layers.Dense(2, "softmax")])
    model.compile(adam(), "sparse_categorical_crossentropy")
    x, y = arrays()
    return Way(model, x, (y[:, 0] > 0).astype("int32"), {"class_weight": {0: 1.0, 1: 3.0}})


def validated(poison=None):
    x, y = arrays(poison)
    return Way(network(), x, y, {"validation_data": (x[:10], y[:10] * INFINITE), "epochs": 2})


def from_tf_data(poison=None):
    return Way(network(), tf.data.Dataset.from_tensor_slices(arrays(poison)).batch(SIZE))


def generating(poison=None):
    return Way(network(), generated(*arrays(poison)), None, {"steps_per_epoch": BATCHES})


HEALTHY = {
    "function": plain,
    "jit": lambda: plain(jit_compile=True),
    "steps_per_execution": lambda: plain(steps_per_execution=4),
    "eager": lambda: plain(run_eagerly=True, steps_per_execution=4),
    "functional": lambda: plain(kind=functional),
    "subclassed": built_late,
    "compute_loss": lambda: plain(kind=WithComputedLoss, metrics=None),
    "dictionary": in_dictionary,
    "sample_weight": with_weights,
    "class_weight": with_classes,
    "validation_data": validated,
    "frozen layer": partly_frozen,
    "clipnorm": lambda: plain(optimizer=adam(clipnorm=0.1)),
    "global_clipnorm": lambda: plain(optimizer=adam(global_clipnorm=0.1)),
    "clipvalue": lambda: plain(optimizer=adam(clipvalue=0.01)),
    "accumulation": lambda: plain(optimizer=adam(gradient_accumulation_steps=2, global_clipnorm=0.1)),
    "weight_decay, use_ema, constraint": constrained,
    "embedding, shared and unused layer": embedded,
    "adversaries": adversarial,
    "adversaries, eager": lambda: adversarial(run_eagerly=True, critic_steps=2),
    "float64": of_policy("float64"),
    "mixed_bfloat16": of_policy("mixed_bfloat16"),
}
BAD = {
    "auto": lambda poison: plain(poison, jit_compile="auto"),
    "jit": lambda poison: plain(poison, jit_compile=True),
    "jit, steps_per_execution": lambda poison: plain(poison, jit_compile=True, steps_per_execution=4),
    "eager": lambda poison: plain(poison, run_eagerly=True, steps_per_execution=4),
    "tape": lambda poison: plain(poison, kind=WithTape, metrics=None),
    "generator": generating,
    "PyDataset": lambda poison: Way(network(), Batches(*arrays(poison))),
    "tf.data": from_tf_data,
    "sample_weight": with_weights,
}
SKIPPING = {
    "steps_per_execution": lambda poison=None: plain(poison, steps_per_execution=4),
    "jit, steps_per_execution": lambda poison=None: plain(poison, jit_compile=True, steps_per_execution=4),
    "eager": lambda poison=None: plain(poison, run_eagerly=True, steps_per_execution=4),
    "tape, global_clipnorm": lambda poison=None: plain(
        poison, kind=WithTape, metrics=None, optimizer=adam(global_clipnorm=0.1)
    ),
}


@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables")
@pytest.mark.parametrize("way", HEALTHY)
def test_a_watched_fit_trains_like_a_bare_fit_and_records_every_step(way, tmp_path, read):
    watched = HEALTHY[way]()
    ours, theirs = watched.train(NanWatchCallback(tmp_path)), HEALTHY[way]().train()
    assert same(ours, theirs)
    back = read(tmp_path)
    epochs = watched.fit.get("epochs", 1)
    assert (back.verdict.status, back.verdict.steps_seen) == ("finite", BATCHES * epochs)
    assert np.isfinite(back.column("loss")).all()
    assert (back.column("global_norm") > 0).all()


def test_three_updates_of_a_critic_in_a_step_are_one_step(tmp_path, read):
    def way():
        return adversarial(critic_steps=3, penalty=1.0)

    ours, theirs = way().train(NanWatchCallback(tmp_path)), way().train()
    # TensorFlow fuses a penalty on a gradient differently in a watched graph.
    assert all(np.allclose(a, b, rtol=1e-6, atol=1e-7) for a, b in zip(ours, theirs))
    back = read(tmp_path)
    assert (back.verdict.status, back.verdict.steps_seen) == ("finite", BATCHES)
    assert (back.column("grad_norm") > 0).all()


@pytest.mark.parametrize("way", BAD)
def test_a_bad_step_is_reported_and_leaves_the_state_of_the_step_before(way, tmp_path):
    watched = BAD[way](INFINITE)
    with pytest.raises(NonFiniteError) as caught:
        watched.train(NanWatchCallback(tmp_path))
    first = caught.value.verdict.first
    assert (first.step, first.phase, first.kind, first.evidence) == (POISONED, "loss", "pos_inf", "replay")
    assert first.op.type == "Square"
    x, y = arrays(INFINITE)
    rows = slice(POISONED * SIZE, (POISONED + 1) * SIZE)
    batch = load_batch(tmp_path.parent / first.batch)
    assert same([np.asarray(part) for part in batch.args[:2]], [x[rows], y[rows]])
    jit_compile, run_eagerly = watched.model.jit_compile, watched.model.run_eagerly
    metrics = None if way == "tape" else ["mae"]
    bare = plain(kind=type(watched.model), metrics=metrics, jit_compile=jit_compile, run_eagerly=run_eagerly)
    bare = bare._replace(x=x[: rows.start], y=y[: rows.start])
    if "sample_weight" in watched.fit:
        assert np.array_equal(batch.args[2], watched.fit["sample_weight"][rows])
        bare = bare._replace(fit={"sample_weight": watched.fit["sample_weight"][: rows.start]})
    assert same(state(watched.model), bare.train())


@pytest.mark.parametrize("way", SKIPPING)
def test_a_skipped_batch_leaves_no_trace(way, tmp_path, read):
    watched, bare = SKIPPING[way](INFINITE), SKIPPING[way]()
    ours = watched.train(NanWatchCallback(tmp_path, policy="skip"))
    x, y = without(POISONED, bare.x, bare.y)
    assert same(ours, bare._replace(x=x, y=y).train())
    verdict = read(tmp_path).verdict
    assert (verdict.first.step, verdict.skipped_steps, verdict.steps_seen) == (POISONED, 1, BATCHES)
    batch = load_batch(tmp_path / verdict.first.batch)
    assert batch.args[1][BAD_ROW % SIZE] == np.float32(INFINITE)


@pytest.mark.parametrize("options", [{}, {"run_eagerly": True, "critic_steps": 2}], ids=["function", "eager"])
def test_a_skipped_batch_leaves_no_trace_in_either_of_two_adversaries(options, tmp_path):
    watched, bare = adversarial(-np.inf, **options), adversarial(**options)
    ours = watched.train(NanWatchCallback(tmp_path, policy="skip"))
    x, y = without(POISONED, bare.x, bare.y)
    assert same(ours, bare._replace(x=x, y=y).train())


class Logarithmic(Layers.Layer):
    def call(self, x):
        return tf.math.log(x)


def logarithmic_error(y, made):
    return tf.reduce_mean(tf.square(tf.math.log1p(y) - made))


def test_a_replay_names_the_line_of_a_users_own_layer(tmp_path):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input([3]), Layers.Dense(4, "sigmoid"), Logarithmic(), Layers.Dense(1)])
    model.compile(adam(), "mse")
    x, y = arrays()
    x[BAD_ROW] = -1e30 * np.sign(model.layers[0].kernel.numpy()[:, 0])
    with pytest.raises(NonFiniteError) as caught:
        Way(model, x, y).train(NanWatchCallback(tmp_path))
    first = caught.value.verdict.first
    assert (first.step, first.op.type, first.kind) == (POISONED, "Log", "neg_inf")
    assert (first.source.text, first.source.function) == ("return tf.math.log(x)", "call")


def test_a_replay_names_the_line_of_a_users_own_loss_function(tmp_path):
    model = network()
    model.compile(adam(), logarithmic_error)
    x, y = arrays()
    y = np.abs(y)
    y[BAD_ROW] = -1
    with pytest.raises(NonFiniteError) as caught:
        Way(model, x, y).train(NanWatchCallback(tmp_path))
    first = caught.value.verdict.first
    assert (first.step, first.op.type, first.source.function) == (POISONED, "Log1p", "logarithmic_error")


def test_an_overflow_that_the_loss_scale_skips_is_counted_and_an_inf_loss_is_reported(tmp_path, read):
    scaled = of_policy("mixed_float16")
    watched = scaled()
    ours, theirs = watched.train(NanWatchCallback(tmp_path / "healthy")), scaled().train()
    assert same(ours, theirs)
    verdict, optimizer = read(tmp_path / "healthy").verdict, watched.model.optimizer
    halved = int(np.log2(optimizer.initial_scale / float(optimizer.dynamic_scale)))
    assert (verdict.status, verdict.skipped_steps) == ("finite", halved)
    assert 1 <= halved <= 3
    way = scaled()
    way.y[BAD_ROW] = np.inf
    with pytest.raises(NonFiniteError, match=f"^Step {POISONED}: "):
        way.train(NanWatchCallback(tmp_path / "bad"))


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_recording_changes_nothing_even_of_a_bad_step(run_eagerly, tmp_path, read):
    verdicts = []
    ours = plain(INFINITE, run_eagerly=run_eagerly).train(
        NanWatchCallback(tmp_path, policy="record", on_nonfinite=verdicts.append)
    )
    theirs = plain(INFINITE, run_eagerly=run_eagerly).train()
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(ours, theirs, strict=True))
    assert [verdict.first.step for verdict in verdicts] == [POISONED]
    assert read(tmp_path).verdict.first.step == POISONED


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_recording_ends_data_of_unknown_length_as_without_a_watch(tmp_path):
    # TensorFlow's last call of an epoch finds no batch. It still runs what needs none, such as a weight decay.
    ends = []
    for callback in (None, NanWatchCallback(tmp_path, policy="record")):
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input([4]), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
        model.compile(keras.optimizers.AdamW(0.01, weight_decay=0.1), "mse", jit_compile=False)
        x = np.random.default_rng(1).normal(size=(24, 5)).astype("float32")
        batches = tf.data.Dataset.from_tensor_slices((x[:, :4], x[:, 4:])).batch(8).filter(lambda *_: True)
        model.fit(batches, epochs=2, shuffle=False, verbose=0, callbacks=[callback] if callback else [])
        ends.append([variable.numpy() for variable in (*model.variables, *model.optimizer.variables)])
    assert all(np.array_equal(a, b) for a, b in zip(*ends, strict=True))


def test_fit_after_fit_is_one_run_and_a_later_bare_fit_is_not_recorded(tmp_path, read):
    watched, bare, callback = plain(), plain(), NanWatchCallback(tmp_path)
    watched.train(callback)
    watched.train(callback)
    assert read(tmp_path).verdict.steps_seen == 2 * BATCHES
    for _ in range(2):
        bare.train()
    assert same(watched.train(), bare.train())
    assert read(tmp_path).verdict.steps_seen == 2 * BATCHES


def test_a_model_that_is_compiled_again_to_train_more_of_it_is_watched_whole(tmp_path, read):
    way, callback = partly_frozen(), NanWatchCallback(tmp_path)
    way.train(callback)
    way.model.get_layer("hidden").trainable = True
    way.model.compile(adam(), "mse")
    way.train(callback)
    sessions = read(tmp_path).log.sessions
    assert [len(session.header.variables) for session in sessions] == [4, 6]


def test_a_callback_list_may_be_made_beforehand_and_used_twice(tmp_path, read):
    x, y = arrays()
    model = network()
    callbacks = keras.callbacks.CallbackList([NanWatchCallback(tmp_path)], add_history=True, model=model)
    model.train_on_batch(x[:SIZE], y[:SIZE])
    for _ in range(2):
        model.fit(x, y, batch_size=SIZE, verbose=0, callbacks=callbacks)
    assert read(tmp_path).verdict.steps_seen == 2 * BATCHES


def test_weights_that_the_last_update_makes_non_finite_are_reported_at_the_end_of_fit(tmp_path):
    way = plain(optimizer=keras.optimizers.SGD(3e38))
    way.model.get_layer("head").kernel.assign(way.model.get_layer("head").kernel * 100)
    with pytest.raises(NonFiniteError, match=r"^Step 0: .* update"):
        way._replace(x=way.x[:SIZE], y=way.y[:SIZE]).train(NanWatchCallback(tmp_path))


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
def test_it_works_beside_the_callbacks_of_keras(tmp_path, read):
    def beside(folder):
        return [
            keras.callbacks.TensorBoard(folder / "logs", update_freq=2, histogram_freq=1, write_graph=False),
            keras.callbacks.EarlyStopping(monitor="loss", patience=5),
            keras.callbacks.ModelCheckpoint(folder / "model.keras"),
            keras.callbacks.BackupAndRestore(folder / "backup", save_freq=4),
            keras.callbacks.TerminateOnNaN(),
        ]

    watched, bare = plain(), plain()
    ours = watched.train(*beside(tmp_path), NanWatchCallback(tmp_path / "logs"), epochs=2)
    assert same(ours, bare.train(*beside(tmp_path / "bare"), epochs=2))
    assert read(tmp_path / "logs").verdict.steps_seen == 2 * BATCHES
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert same([np.asarray(weight) for weight in loaded.get_weights()], watched.model.get_weights())


def test_the_norm_of_each_layers_output_is_recorded_every_so_many_steps(tmp_path, read):
    way = plain(jit_compile=True)
    expected = np.linalg.norm(way.model.get_layer("hidden")(way.x[:SIZE]))
    way.train(NanWatchCallback(tmp_path, activations_every=4))
    back = read(tmp_path)
    layers_of_model = [name.rpartition("/")[2] for name in back.session.header.tensors]
    assert layers_of_model[:2] + layers_of_model[3:] == ["hidden", "norm", "head"]
    norms = back.column("tensor_norm")
    assert np.isnan(norms).all(axis=1).tolist() == [False, True, True, True, False, True]
    assert norms[0, 0] == pytest.approx(expected, rel=1e-5)
    assert not any("call" in vars(layer) for layer in way.model.layers)


def test_a_bad_output_in_a_recorded_step_names_its_layer(tmp_path):
    way = plain()
    way.x[:1] = np.inf
    way.model.get_layer("hidden").kernel.assign(np.ones([3, 8]))
    with pytest.raises(NonFiniteError) as caught:
        way.train(NanWatchCallback(tmp_path, activations_every=4, replay=False))
    roles = {(finding.role, finding.name.rpartition("/")[2]) for finding in caught.value.alert.findings}
    assert {("input", "x"), ("tensor", "hidden")} <= roles


def test_activations_every_zero_steps_is_refused(tmp_path):
    with pytest.raises(SetupError, match="activations_every must be positive, or None for never; got 0"):
        NanWatchCallback(tmp_path, activations_every=0)
