"""Checksums equal those of TensorBoard, and heads of records are found."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from tb_nanwatch.reading.checksums import heads_in, masked_checksum


@given(st.binary(max_size=300))
def test_the_checksum_equals_that_of_tensorboard(data):
    assert masked_checksum(data) == masked_crc32c(data)


@given(st.binary(max_size=60), st.binary(min_size=8, max_size=8), st.binary(max_size=60))
def test_a_head_is_found_at_any_offset(before, length, after):
    head = length + masked_crc32c(length).to_bytes(4, "little")
    assert len(before) in heads_in(before + head + after)


@given(st.binary(max_size=200))
def test_every_offset_found_is_a_head(data):
    for place in heads_in(data):
        assert masked_crc32c(data[place : place + 8]).to_bytes(4, "little") == data[place + 8 : place + 12]
