"""A saved batch is loaded as it was, and no file makes loading run code or fail without a clear message."""

from __future__ import annotations

import collections
import contextlib
import copy
import io
import json
import pickle
import zipfile
from pathlib import Path

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tb_nanwatch
from tb_nanwatch.errors import RecordError, SchemaError
from tb_nanwatch.watch.record.archive import SavedBatch, save_batch
from tb_nanwatch.watch.record.batch import Call
from tb_nanwatch.watch.record.packing import LeftOut

Pair = collections.namedtuple("Pair", ["images", "labels"])
MIB = 1024 * 1024
V1 = Path(__file__).parents[2] / "golden" / "batch-v1.npz"


def anything(*args, **kwargs):
    """A step of any signature."""


def train_step(x, y, model=None, *, options=None):
    """A step with names."""


def there_and_back(tmp_path, *args, function=anything, **kwargs):
    saved = save_batch(str(tmp_path), Call(function, args, kwargs), step=3)
    return tb_nanwatch.load_batch(tmp_path / saved.path)


def is_same(a, b):
    """Return whether two leaves are of one type and dtype and equal, NaN equal to NaN."""
    if isinstance(a, tf.Tensor):
        return isinstance(b, tf.Tensor) and a.dtype == b.dtype and is_same(a.numpy(), b.numpy())
    if isinstance(a, np.ndarray | np.generic):
        same = type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape
        return same and (list(a.flat) == list(b.flat) if a.dtype.kind == "O" else a.tobytes() == b.tobytes())
    return type(a) is type(b) and repr(a) == repr(b)


DTYPES = "float16 bfloat16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool complex64 complex128"


class TestRoundTrip:
    @pytest.mark.parametrize("dtype", [*DTYPES.split(), "float8_e4m3fn"])
    @pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
    def test_a_tensor_and_an_array_of_every_dtype(self, dtype, shape, tmp_path):
        array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(tf.as_dtype(dtype).as_numpy_dtype)
        tensor = tf.constant(array)
        assert tensor.dtype == dtype
        batch = there_and_back(tmp_path, tensor, array)
        assert is_same(batch.args[0], tensor)
        assert is_same(batch.args[1], array)

    def test_non_finite_values_keep_their_bits(self, tmp_path):
        values = [np.nan, np.inf, -np.inf, -0.0]
        half = np.array(values, ml_dtypes.bfloat16)
        batch = there_and_back(tmp_path, tf.constant(values), half, *values)
        np.testing.assert_array_equal(batch.args[0], values)
        assert batch.args[1].tobytes() == half.tobytes()
        assert [float.hex(value) for value in batch.args[2:]] == [float.hex(value) for value in values]

    @pytest.mark.parametrize("strings", [b"one", [b"a", b"", "ü\n".encode()], [[b"\x00\xff"], [b"x" * 300]], []])
    def test_strings(self, strings, tmp_path):
        tensor = tf.constant(strings, tf.string)
        assert is_same(there_and_back(tmp_path, tensor).args[0], tensor)

    @pytest.mark.parametrize(
        "array",
        [
            np.array(["left", "right"]),
            np.array([b"left", b"right"]),
            np.array([["left"], ["\ud800 alone"]], object),
            np.array("2026-01-02", "datetime64[D]"),
            np.array([(1, 2.0)], [("place", "<i4"), ("value", ">f8")]),
            np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            np.arange(10, dtype=">i4")[::3],
            np.float32(1.5),
            np.bool_(True),
            np.str_("word"),
        ],
    )
    def test_arrays_of_other_kinds(self, array, tmp_path):
        (back,) = there_and_back(tmp_path, array).args
        assert is_same(np.asarray(back), np.asarray(array))
        assert type(back) is type(array)

    @pytest.mark.parametrize(
        "value", [None, True, 7, -(10**30), 0.1, float("inf"), 1 - 2j, "text \ud800 é", b"\x00\xff", (), [], {}]
    )
    def test_plain_values(self, value, tmp_path):
        assert is_same(there_and_back(tmp_path, value, 0).args[0], value)

    def test_containers_of_any_depth(self, tmp_path):
        nested = {"a": [1, (2.0, None)], 3: Pair(tf.constant([1.0]), {"deep": np.ones(2)}), ("k", 1): "tuple key"}
        batch = there_and_back(tmp_path, nested, option=[nested])
        for back in (batch.args[0], batch.kwargs["option"][0]):
            assert list(back) == ["a", 3, ("k", 1)]
            assert back["a"] == [1, (2.0, None)]
            pair = back[3]
            assert (type(pair).__name__, pair._fields) == ("Pair", ("images", "labels"))
            assert is_same(pair.images, nested[3].images)
            assert is_same(pair.labels["deep"], nested[3].labels["deep"])

    def test_a_field_of_a_named_tuple_that_had_to_be_renamed(self, tmp_path):
        odd = collections.namedtuple("Odd", ["class", "x"], rename=True)(1, 2)
        back = there_and_back(tmp_path, odd).args[0]
        assert (tuple(back), back._fields) == ((1, 2), ("_0", "x"))

    def test_ragged_and_sparse_tensors(self, tmp_path):
        words = tf.ragged.constant([[["a", "b"], []], [], [["c"]]])
        uniform = tf.RaggedTensor.from_uniform_row_length(tf.ragged.constant([[1, 2], [3], [], [4]]), 2)
        dense_inside = tf.RaggedTensor.from_row_splits(tf.ones([3, 2]), [0, 1, 3])
        sparse = tf.sparse.from_dense(tf.constant([[0.0, np.nan], [3.0, 0.0]], tf.float16))
        batch = there_and_back(tmp_path, words, uniform, dense_inside, sparse=sparse)
        for back, value in zip(batch.args, (words, uniform, dense_inside)):
            assert back.to_list() == value.to_list()
            assert tf.type_spec_from_value(back).is_compatible_with(value)
            assert (back.dtype, back.uniform_row_length) == (value.dtype, value.uniform_row_length)
        back = batch.kwargs["sparse"]
        assert back.values.dtype == tf.float16
        np.testing.assert_array_equal(tf.sparse.to_dense(back), [[0.0, np.nan], [3.0, 0.0]])

    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.complex_numbers(),
        st.text(st.characters()),
        st.binary(),
        hnp.arrays(
            st.one_of(hnp.floating_dtypes(), hnp.integer_dtypes(), hnp.boolean_dtypes(), hnp.unicode_string_dtypes()),
            hnp.array_shapes(min_dims=0, min_side=0, max_side=3),
        ),
    )
    containers = st.recursive(
        leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner)
    )

    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(value=containers)
    def test_any_structure_of_any_leaves(self, value, tmp_path):
        def check(a, b):
            if isinstance(a, list | tuple):
                assert type(a) is type(b)
                assert len(a) == len(b)
                [check(*pair) for pair in zip(a, b)]
            elif isinstance(a, dict):
                assert list(a) == list(b)
                [check(a[key], b[key]) for key in a]
            else:
                assert is_same(a, b)

        check(value, there_and_back(tmp_path, value, 0).args[0])

    def test_a_step_runs_with_a_loaded_batch_as_before(self, tmp_path):
        traces = []

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.bfloat16), tf.RaggedTensorSpec([None, None])])
        def step(x, words):
            traces.append(x)
            return tf.reduce_sum(tf.cast(x, tf.float32)) + tf.reduce_sum(words)

        args = tf.ones([3, 2], tf.bfloat16), tf.ragged.constant([[1.0], [2.0, 3.0]])
        assert float(step(*args)) == float(step(*there_and_back(tmp_path, *args).args)) == 12.0
        assert len(traces) == 1


OPTIONS = {
    "none": None,
    "yes": True,
    "int": -(10**30),
    "float": float("inf"),
    "complex": 1 - 2j,
    "text": "text \ud800 é",
    "bytes": b"\x00\xff",
    "list": [1, (2.0,)],
    ("k", 1): "tuple key",
    "array": np.array([1, 2], ">i4"),
    "number": np.float32(1.5),
    "half": np.array([1.5, np.nan], ml_dtypes.bfloat16),
    "words": np.array([["left"], ["\ud800 alone"]], object),
    "strings": tf.constant([b"a", b"", "ü\n".encode()]),
    "ragged": tf.ragged.constant([[["a", "b"], []], [], [["c"]]]),
    "uniform": tf.RaggedTensor.from_uniform_row_length(tf.ragged.constant([[1, 2], [3], [], [4]]), 2),
    "sparse": tf.sparse.from_dense(tf.constant([[0.0, np.nan], [3.0, 0.0]], tf.float16)),
}


class TestTheFormat:
    """The golden is a file of version 1 with a value of each kind."""

    def call(self):
        def step(x, options, *, pair, model):
            """A step with names."""

        pair = Pair(tf.constant([1, 2], tf.bfloat16), np.ones(2))
        return Call(step, (tf.constant([[1.0, np.nan], [2.0, 3.0]]), OPTIONS), {"pair": pair, "model": object()})

    def test_a_file_of_version_1_is_loaded(self):
        batch = tb_nanwatch.load_batch(V1)
        assert (batch.step, batch.samples, batch.left_out) == (7, None, ("model",))
        (x, options), pair = batch.args, batch.kwargs["pair"]
        assert is_same(x, tf.constant([[1.0, np.nan], [2.0, 3.0]]))
        assert (pair._fields, pair.images.dtype, pair.labels.tolist()) == (("images", "labels"), tf.bfloat16, [1, 1])
        assert batch.kwargs["model"] == LeftOut("model", "object")
        assert list(options) == list(OPTIONS)
        for name in ("ragged", "uniform"):
            assert options[name].to_list() == OPTIONS[name].to_list()
        np.testing.assert_array_equal(tf.sparse.to_dense(options["sparse"]), [[0.0, np.nan], [3.0, 0.0]])
        assert all(is_same(options[name], OPTIONS[name]) for name in set(OPTIONS) - {"ragged", "uniform", "sparse"})

    def test_the_same_arguments_are_saved_in_the_same_form(self, tmp_path):
        saved = save_batch(str(tmp_path), self.call(), step=7)
        with np.load(V1) as old, np.load(tmp_path / saved.path) as new:
            assert new.files == old.files
            assert new["description"].tobytes() == old["description"].tobytes()
            for name in old.files:
                assert is_same(new[name], old[name])


class TestWhatIsLeftOut:
    def test_a_value_without_a_plain_form_is_named_and_marked(self, tmp_path):
        model, variable = keras.Sequential(), tf.Variable(1.0)
        dataset = tf.data.Dataset.range(3)
        masked = np.ma.masked_array([1.0, 2.0], [True, False])
        options = {"rate": variable, "data": [iter(dataset), dataset], "call": anything, "masked": masked}
        call = Call(train_step, (tf.ones(2), np.array([object()]), model), {"options": options})
        saved = save_batch(str(tmp_path), call, step=3)
        names = (
            "y",
            "model",
            *(f"options[{key}]" for key in ("'rate'", "'data'][0", "'data'][1", "'call'", "'masked'")),
        )
        assert saved.notes == (f"The batch is saved without {', '.join(names)}, which cannot be stored.",)
        batch = tb_nanwatch.load_batch(tmp_path / saved.path)
        assert (batch.left_out, batch.notes) == (names, saved.notes)
        assert batch.args[1:] == (LeftOut("y", "ndarray"), LeftOut("model", "Sequential"))
        assert batch.kwargs["options"]["rate"] == LeftOut("options['rate']", "ResourceVariable")
        np.testing.assert_array_equal(batch.args[0], [1.0, 1.0])

    @pytest.mark.parametrize("args", [(), (keras.Sequential(),)])
    def test_arguments_that_cannot_be_stored_leave_no_file(self, args, tmp_path):
        saved = save_batch(str(tmp_path), Call(anything, args, {}), step=3)
        assert (saved.path, saved.notes) == (None, ())
        assert list(tmp_path.iterdir()) == []


class TestTheLimit:
    """A batch of 8 samples of a quarter of a MiB each."""

    def batch(self):
        x = np.arange(8, dtype=np.float32)[:, None] + np.zeros([8, 65536], np.float32)
        return {
            "x": tf.constant(x),
            "y": np.arange(8),
            "text": tf.constant([b"%d" % number for number in range(8)]),
            "ragged": tf.ragged.constant([[number] * number for number in range(8)]),
            "sparse": tf.sparse.from_dense(tf.eye(8) * tf.range(8.0)),
            "table": tf.zeros([3, 8]),
            "rate": 0.1,
            "mask": tf.ones([]),
        }

    def test_only_the_bad_samples_of_arguments_with_the_leading_dimension(self, tmp_path):
        call = Call(anything, (), self.batch())
        saved = save_batch(str(tmp_path), call, step=3, samples=[6, 2], most_bytes=MIB)
        assert (saved.path, saved.samples) == ("batches/step-3.npz", (2, 6))
        note = (
            r"Of the batch's 8 samples only 2, 6 are saved, which were bad: all of it takes 2.0 MiB, more than 1.0 MiB."
        )
        assert saved.notes == (note,)
        batch = tb_nanwatch.load_batch(tmp_path / saved.path)
        assert (batch.samples, batch.notes) == ((2, 6), (note,))
        loaded = batch.kwargs
        assert loaded["x"].shape == (2, 65536)
        assert loaded["x"][:, 0].numpy().tolist() == [2.0, 6.0]
        assert loaded["y"].tolist() == [2, 6]
        assert loaded["text"].numpy().tolist() == [b"2", b"6"]
        assert loaded["ragged"].to_list() == [[2] * 2, [6] * 6]
        assert tf.sparse.to_dense(loaded["sparse"]).numpy().tolist() == [[0, 0, 2, 0, 0, 0, 0, 0], [0] * 6 + [6, 0]]
        assert (loaded["table"].shape, loaded["rate"], loaded["mask"].shape) == ((3, 8), 0.1, ())
        assert (tmp_path / saved.path).stat().st_size < MIB

    def test_a_batch_of_the_largest_size_is_saved_whole(self, tmp_path):
        call = Call(anything, (np.zeros(MIB, np.uint8),), {})
        whole = SavedBatch("batches/step-0.npz")
        assert save_batch(str(tmp_path), call, step=0, samples=[1], most_bytes=MIB) == whole
        assert save_batch(str(tmp_path), call, step=1, samples=[1], most_bytes=MIB - 1).samples == (1,)

    @pytest.mark.parametrize(
        ("samples", "note"),
        [
            ([], r"it takes 2\.0 MiB, and of more than 1\.0 MiB only the bad samples are saved, which are not known"),
            ([8], r"it takes 2\.0 MiB, and of more than 1\.0 MiB only the bad samples are saved, which are not known"),
            (range(6), r"its bad samples alone take 1\.5 MiB, more than 1\.0 MiB"),
        ],
    )
    def test_a_batch_that_is_too_large_is_a_note(self, samples, note, tmp_path):
        call = Call(anything, (), self.batch())
        saved = save_batch(str(tmp_path), call, step=3, samples=list(samples), most_bytes=MIB)
        assert saved.path is None
        with pytest.raises(AssertionError, match=note):
            raise AssertionError(*saved.notes)
        assert list(tmp_path.iterdir()) == []

    def test_strings_are_counted_by_their_length(self, tmp_path):
        call = Call(anything, (tf.constant([b"x" * MIB, b"y"]),), {})
        saved = save_batch(str(tmp_path), call, step=0, samples=[1], most_bytes=1000)
        assert tb_nanwatch.load_batch(tmp_path / saved.path).args[0].numpy().tolist() == [b"y"]


class TestFiles:
    def test_a_file_is_never_written_over(self, tmp_path):
        paths = [save_batch(str(tmp_path), Call(anything, (number,), {}), step=3).path for number in range(3)]
        assert paths == ["batches/step-3.npz", "batches/step-3-2.npz", "batches/step-3-3.npz"]
        assert [tb_nanwatch.load_batch(tmp_path / path).args for path in paths] == [(0,), (1,), (2,)]
        assert len(list((tmp_path / "batches").iterdir())) == 3

    def test_numpy_alone_opens_it(self, tmp_path):
        save_batch(str(tmp_path), Call(anything, (tf.constant([1.0, 2.0]),), {}), step=3)
        with np.load(tmp_path / "batches" / "step-3.npz", allow_pickle=False) as file:
            assert sorted(file.files) == ["0", "description"]
            assert file["0"].tolist() == [1.0, 2.0]

    def test_a_disk_that_cannot_be_written_is_a_note(self, tmp_path):
        (tmp_path / "batches").write_text("not a directory")
        saved = save_batch(str(tmp_path), Call(anything, (1,), {}), step=3)
        assert saved.path is None
        assert saved.notes[0].startswith("The batch could not be saved: ")
        assert str(tmp_path) in saved.notes[0]

    def test_a_disk_that_fills_up_leaves_nothing_behind(self, tmp_path, monkeypatch):
        write = tf.io.gfile.GFile.write

        def full(self, data):
            write(self, data[:100])
            raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

        monkeypatch.setattr(tf.io.gfile.GFile, "write", full)
        saved = save_batch(str(tmp_path), Call(anything, (1,), {}), step=3)
        assert saved.notes == ("The batch could not be saved: No space left on device",)
        assert list((tmp_path / "batches").iterdir()) == []


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def npz(**members):
    buffer = io.BytesIO()
    np.savez(buffer, **members)
    return buffer.getvalue()


def described(**about):
    base = {"tb_nanwatch_batch": 1, "step": 0, "samples": None, "left_out": [], "notes": []}
    nothing = {"args": {"is": "tuple", "items": []}, "kwargs": {"is": "dict", "items": []}}
    return npz(description=np.frombuffer(json.dumps({**base, **nothing, **about}).encode(), np.uint8))


class TestUntrustedFiles:
    def load(self, tmp_path, data):
        path = tmp_path / "file.npz"
        path.write_bytes(data)
        return tb_nanwatch.load_batch(path)

    def test_a_directory_and_a_missing_file_have_their_own_message(self, tmp_path):
        with pytest.raises(RecordError, match=r"such as batches/step-3\.npz; '.*' is a directory"):
            tb_nanwatch.load_batch(tmp_path)
        with pytest.raises(RecordError, match=r"such as batches/step-3\.npz; '.*none' is no such file"):
            tb_nanwatch.load_batch(tmp_path / "none")

    def test_a_pickle_in_place_of_an_array_is_not_run(self, tmp_path):
        bomb = np.array([Bomb(tmp_path / "ran")], object)
        with pytest.raises(RecordError, match="a batch must be a file that a watch saved"):
            self.load(tmp_path, npz(description=bomb))
        argument = {"is": "tuple", "items": [{"is": "array", "at": 0}]}
        about = np.load(io.BytesIO(described(args=argument)))["description"]
        with pytest.raises(RecordError, match="allow_pickle"):
            self.load(tmp_path, npz(**{"description": about, "0": bomb}))
        with pytest.raises(RecordError):
            self.load(tmp_path, pickle.dumps(Bomb(tmp_path / "ran")))
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"text",
            npz(other=np.zeros(3)),
            npz(description=np.zeros(3)),
            described(args={"is": "dict", "items": []}),
            described(kwargs={"is": "dict", "items": [[{"is": "int", "value": "0x1"}, {"is": "value", "value": 1}]]}),
            described(args={"is": "tuple", "items": [{"is": "array", "at": 5}]}),
            described(args={"is": "tuple", "items": [{"is": "bomb"}]}),
            described(args={"is": "tuple", "items": [{"is": "namedtuple", "name": "a b", "fields": [], "items": []}]}),
            described(args={"is": "tuple", "items": [{"is": []}]}),
            described(args=[]),
            described(samples=3),
        ],
    )
    def test_a_file_that_is_no_batch_is_refused_by_name(self, data, tmp_path):
        with pytest.raises(RecordError, match=r"a batch must be a file that a watch saved; '.*file\.npz' is none: "):
            self.load(tmp_path, data)

    def test_a_description_as_deep_as_can_be(self, tmp_path):
        deep = '{"is":"list","items":[' * 100_000
        with pytest.raises(RecordError, match="recursion"):
            self.load(tmp_path, npz(description=np.frombuffer(deep.encode(), np.uint8)))

    def test_a_newer_version_has_its_own_error(self, tmp_path):
        with pytest.raises(SchemaError, match="a batch must be of version 1 at most to be loaded; this one is of 2"):
            self.load(tmp_path, described(tb_nanwatch_batch=2))

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), length=st.floats(0, 1))
    @pytest.mark.filterwarnings("ignore::UserWarning")
    def test_a_file_with_a_flipped_byte_or_cut_short_is_loaded_or_refused(self, place, byte, length, tmp_path):
        args = tf.constant([1.0, 2.0]), Pair(np.array([b"a"], object), tf.ragged.constant([[1], []]))
        saved = save_batch(str(tmp_path / "sound"), Call(anything, args, {"rate": 0.1}), step=3)
        data = bytearray((tmp_path / "sound" / saved.path).read_bytes())
        data[int(place * len(data))] = byte
        with contextlib.suppress(RecordError):
            self.load(tmp_path, bytes(data[: 1 + int(length * len(data))]))

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_a_description_with_something_else_in_it_is_loaded_or_refused(self, data, tmp_path):
        args = tf.constant([1.0, 2.0]), tf.ragged.constant([[1], []]), tf.sparse.eye(2), np.ones(1, ml_dtypes.bfloat16)
        saved = save_batch(str(tmp_path / "sound"), Call(anything, args, {"text": np.array(["a"], object)}), step=3)
        with np.load(tmp_path / "sound" / saved.path) as file:
            members = dict(file)
        description = json.loads(members["description"].tobytes())
        other = st.none() | st.integers(-2, 2**40) | st.text(max_size=3) | st.just([]) | st.just({})
        places = list(inner_places(description))
        container, key = data.draw(st.sampled_from(places))
        container[key] = data.draw(other | st.sampled_from([holder[at] for holder, at in places]))
        try:
            text = json.dumps(description)
        except ValueError:
            return
        members["description"] = np.frombuffer(text.encode(), np.uint8)
        with contextlib.suppress(RecordError):
            self.load(tmp_path, npz(**members))

    def test_a_member_that_asks_for_more_memory_than_there_is(self, tmp_path):
        buffer, header = io.BytesIO(), io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 60,)})
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("description.npy", header.getvalue())
        with pytest.raises(RecordError, match="must hold as much as its head says, 1,152,921,504,606,846,976 bytes"):
            self.load(tmp_path, buffer.getvalue())

    def test_a_compressed_file_is_not_unpacked(self, tmp_path):
        buffer = io.BytesIO()
        np.savez_compressed(buffer, description=np.zeros(2**20, np.uint8))
        with pytest.raises(RecordError, match="its arrays must not be compressed"):
            self.load(tmp_path, buffer.getvalue())

    def test_two_arrays_must_not_share_a_part_of_the_file(self, tmp_path):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("description.npy", bytes(10_000))
            for number in range(9):
                again = copy.copy(archive.filelist[0])
                again.filename = f"{number}.npy"
                archive.filelist.append(again)
        with pytest.raises(RecordError, match=r"its arrays must fit in its 10,\d\d\d bytes; they have 100,000"):
            self.load(tmp_path, buffer.getvalue())

    def test_two_values_must_not_share_an_array(self, tmp_path):
        tensor = {"is": "tensor", "at": 0}
        about = np.load(io.BytesIO(described(args={"is": "tuple", "items": [tensor, tensor]})))["description"]
        with pytest.raises(RecordError, match="array 0 must be there, and belong to one value alone"):
            self.load(tmp_path, npz(**{"description": about, "0": np.ones(3)}))

    @pytest.mark.parametrize("lengths", [[3, -3, 3, -3], [4], [0.5]])
    def test_texts_are_parts_of_their_bytes(self, lengths, tmp_path):
        texts = {"is": "array", "bytes": 0, "lengths": 1, "text": False}
        about = np.load(io.BytesIO(described(args={"is": "tuple", "items": [texts]})))["description"]
        arrays = {"0": np.zeros(3, np.uint8), "1": np.array(lengths)}
        with pytest.raises(RecordError, match="the lengths of texts must be those of parts of their bytes"):
            self.load(tmp_path, npz(description=about, **arrays))

    def test_rows_without_values_have_a_limit(self, tmp_path):
        values = {"is": "tensor", "at": 0}
        ragged = {"is": "ragged", "values": values, "size": 0, "rows": 2**40}
        about = np.load(io.BytesIO(described(args={"is": "tuple", "items": [ragged]})))["description"]
        with pytest.raises(RecordError, match="a ragged tensor must have at most 1,048,576 empty rows"):
            self.load(tmp_path, npz(**{"description": about, "0": np.zeros(0)}))


def inner_places(value):
    """Yield every (container, key) in a JSON value."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in entries:
        yield value, key
        yield from inner_places(item)
