"""A watch belongs to one training: a copy of it is refused, and its steps are copied like functions."""

from __future__ import annotations

import copy
import pickle

import pytest
import tensorflow as tf

from tb_nanwatch import Watch
from tb_nanwatch.errors import SetupError


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_watch_cannot_be_copied(copied, tmp_path):
    with pytest.raises(SetupError, match="make a new Watch for the copy, with a run_name of its own"):
        copied(Watch(tmp_path))


def test_an_object_with_a_watched_step_can_be_copied_and_each_trains_its_own(tmp_path):
    watch = Watch(tmp_path)

    class Agent:
        def __init__(self):
            self.weight = tf.Variable([1.0], name="agent/w")

        @watch.step
        def train_step(self, x):
            optimizer = tf.compat.v1.train.GradientDescentOptimizer(1.0)
            watch.apply_gradients(optimizer, [(x * self.weight, self.weight)], loss=tf.reduce_sum(self.weight))

    agent = Agent()
    agent.train_step(tf.constant([0.5]))
    target = copy.deepcopy(agent)
    # The copy may have the id of an original that is gone.
    name = next(name for name in vars(target) if name.startswith("_nanwatch"))
    vars(target)[name.replace(str(id(agent)), str(id(target)))] = vars(agent)[name]
    # The watch has the variables of its first step only.
    with pytest.warns(UserWarning, match="does not watch variable"):
        target.train_step(tf.constant([0.5]))
    watch.close()
    assert (float(agent.weight[0]), float(target.weight[0])) == (0.5, 0.25)
