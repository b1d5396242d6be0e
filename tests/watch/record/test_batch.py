"""A call finds the arguments, and the samples, that hold NaN or Inf."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tb_nanwatch.watch.record.batch import Call

NAN = float("nan")


def findings_of(argument):
    call = Call(lambda x: None, (argument,), {})
    return [(finding.name, finding.counts.nan, finding.samples) for finding in call.findings()]


@pytest.mark.parametrize(
    ("argument", "samples"),
    [
        (tf.constant([[1.0], [NAN]]), (1,)),
        (np.array([NAN, 1.0]), (0,)),
        (tf.SparseTensor([[0, 0], [0, 1], [3, 1]], [1.0, 2.0, NAN], [5, 2]), (3,)),
        (tf.ragged.constant([[1.0, 2.0], [NAN]]), (1,)),
        (tf.ragged.constant([[[1.0], [2.0, 3.0]], [[4.0]], [[5.0], [NAN]]]), (2,)),
    ],
)
def test_samples_are_rows_of_the_dense_or_ragged_tensor(argument, samples):
    assert findings_of(argument) == [("x", 1, samples)]


def test_finite_arguments_and_text_have_no_finding():
    assert findings_of(tf.SparseTensor([[0, 0]], [1.0], [5, 2])) == []
    assert findings_of(tf.ragged.constant([["a"], ["b"]])) == []
