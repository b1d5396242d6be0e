"""The checksum taken in C is the one that TensorBoard takes byte by byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from tb_nanwatch.reading.checksums import masked_checksum


@given(st.binary(max_size=300))
def test_it_is_tensorboards_own(data):
    assert masked_checksum(data) == masked_crc32c(data)
