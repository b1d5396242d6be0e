"""A loss scale that an optimizer of TensorFlow 1 changes by itself."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch import NonFiniteError, Watch
from tests.watch.drivers.session_v1.graphs import EXACT, v1

STEPS = 12
GROWS_AFTER = 5


@pytest.fixture(params=["equality of values", "equality of objects"], autouse=True)
def equality(request):
    was_v2 = v1.control_flow_v2_enabled()
    if request.param == "equality of objects":
        v1.disable_tensor_equality()
    # A branch of TensorFlow 2 cannot hold a reference variable, and the optimizer updates in a branch.
    v1.disable_control_flow_v2()
    yield
    v1.enable_tensor_equality()
    if was_v2:
        v1.enable_control_flow_v2()


def trained(watch, *, use_resource, feeds):
    with tf.Graph().as_default(), v1.Session(config=EXACT) as session:
        x = v1.placeholder(tf.float32, [3])
        with v1.variable_scope("layer", use_resource=use_resource):
            weight = v1.get_variable("w", [3], initializer=v1.ones_initializer())
        half = tf.cast(weight * x, tf.float16) * tf.cast(x, tf.float16)
        loss = tf.reduce_sum(tf.cast(half, tf.float32))
        scale = v1.mixed_precision.DynamicLossScale(initial_loss_scale=2.0**17, increment_period=GROWS_AFTER)
        optimizer = v1.mixed_precision.MixedPrecisionLossScaleOptimizer(v1.train.MomentumOptimizer(1e-3, 0.9), scale)
        pairs = optimizer.compute_gradients(loss)
        apply = optimizer.apply_gradients if watch is None else None
        train = apply(pairs) if apply else watch.apply_gradients(optimizer, pairs, loss=loss)
        session.run(v1.global_variables_initializer())
        for feed in feeds:
            if watch is None:
                session.run(train, {x: feed})
            else:
                watch.session_run(session, train, {x: feed})
        return session.run(weight)


@pytest.mark.parametrize("use_resource", [True, False], ids=["resource", "reference"])
def test_an_overflow_that_the_optimizer_leaves_out_is_a_skipped_step(use_resource, tmp_path, read):
    watch, feeds = Watch(tmp_path), [[1, 2, 3]] * STEPS
    np.testing.assert_array_equal(
        trained(watch, use_resource=use_resource, feeds=feeds), trained(None, use_resource=use_resource, feeds=feeds)
    )
    watch.close()
    verdict = read(tmp_path).verdict
    assert verdict.status != "nonfinite"
    # The scales 2^17, 2^16 and 2^15 overflow, and 2^15 once more after five good steps.
    assert verdict.skipped_steps == 4


def test_a_bad_loss_is_none_of_the_scale(tmp_path):
    watch = Watch(tmp_path)
    with pytest.raises(NonFiniteError, match="Step 6: NaN was in the input"):
        trained(watch, use_resource=True, feeds=[[1, 2, 3]] * 6 + [[1, np.nan, 3]])
    watch.close()
