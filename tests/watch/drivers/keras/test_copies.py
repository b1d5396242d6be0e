"""A copy of a callback is a fresh callback with the same options, and each copy that trains is a run of its own."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from tb_nanwatch import NanWatchCallback, NonFiniteError
from tb_nanwatch.watch.drivers.keras.callback import make_run_of_copy

COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda callback: pickle.loads(pickle.dumps(callback)),
}


def fit(callback, poison=0.0):
    model = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.ones([6, 2], "float32")
    model.fit(
        x, np.array([0, 0, 0, poison, 0, 0], "float32"), batch_size=2, shuffle=False, verbose=0, callbacks=[callback]
    )


@pytest.fixture(params=COPIES)
def copied(request):
    return COPIES[request.param]


def test_each_copy_that_trains_is_a_run_of_its_own(copied, tmp_path, read):
    original = NanWatchCallback(tmp_path)
    for _ in range(2):
        fit(copied(original))
    runs = sorted(path.parent.name for path in tmp_path.rglob("nanwatch"))
    assert runs == ["copy-1", "copy-2"]
    assert [len(read(tmp_path / run).session.series) for run in runs] == [3, 3]


def test_a_callback_that_was_used_can_be_copied_and_each_keeps_its_run(tmp_path, read):
    original = NanWatchCallback(tmp_path, run_name="search")
    fit(original)
    fit(copy.deepcopy(original))
    fit(original)
    assert len(read(tmp_path / "search" / "copy-1").log.sessions) == 1
    assert len(list((tmp_path / "search" / "nanwatch").iterdir())) == 2


def test_the_run_of_a_copy_of_a_copy_is_beside_the_first(tmp_path):
    first = copy.deepcopy(NanWatchCallback(tmp_path))
    fit(first)
    fit(copy.deepcopy(first))
    assert sorted(path.parent.name for path in tmp_path.rglob("nanwatch")) == ["copy-1", "copy-2"]


def test_a_copy_has_the_options_and_calls_the_same_function(tmp_path):
    class Program:
        def __init__(self):
            self.verdicts = []

        def note(self, verdict):
            self.verdicts.append(verdict.first.step)

    program = Program()
    original = NanWatchCallback(tmp_path, policy="record", save_batch=False, on_nonfinite=program.note)
    fit(copy.deepcopy(original), poison=np.nan)
    assert len(program.verdicts) == 1
    assert not list(tmp_path.rglob("*.npz"))


def test_attributes_of_a_subclass_are_copied(copied, tmp_path):
    class Named(NanWatchCallback):
        def __init__(self, log_dir, name):
            super().__init__(log_dir)
            self.name = name

    globals()["Named"], Named.__qualname__ = Named, "Named"
    assert copied(Named(tmp_path, "trial")).name == "trial"


def test_a_copy_that_never_trains_leaves_no_directory(copied, tmp_path):
    copied(NanWatchCallback(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_bad_step_of_a_copy_is_in_its_own_run(tmp_path, read):
    with pytest.raises(NonFiniteError, match=r"nanwatch .*copy-1"):
        fit(copy.deepcopy(NanWatchCallback(tmp_path)), poison=np.nan)
    assert read(tmp_path / "copy-1").verdict.status == "nonfinite"


def test_copies_that_begin_at_once_have_different_runs(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(make_run_of_copy, [str(tmp_path)] * 32))
    assert sorted(names, key=lambda name: int(name[5:])) == [f"copy-{number}" for number in range(1, 33)]


def test_a_directory_that_cannot_be_made_still_gives_a_name(tmp_path):
    (tmp_path / "file").write_text("")
    assert make_run_of_copy(str(tmp_path / "file")) == "copy-1"
