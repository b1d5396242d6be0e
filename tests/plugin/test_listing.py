"""The list of runs is fetched rarely, is never old, and is fetched again after an error."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tensorboard import errors
from tensorboard.context import RequestContext

from tb_nanwatch.plugin.listing import THREAD, Listing
from tb_nanwatch.reading.source import Experiment, ProviderError, RunIndex

EXPERIMENT = Experiment(RequestContext(), "")
TIMEOUT_S = 20


class Clock:
    """A clock with a settable time that counts its calls, so that another thread can wait for them."""

    def __init__(self):
        self.now_s = 0.0
        self.calls = threading.Semaphore(0)

    def __call__(self):
        self.calls.release()
        return self.now_s


class Provider:
    """Lists one more run with each call; it does not answer while its gate is closed."""

    def __init__(self):
        self.asked = []
        self.gate = threading.Event()
        self.gate.set()
        self.error = None

    def index(self, experiment):
        self.asked.append(experiment.id)
        count = len(self.asked)
        assert self.gate.wait(TIMEOUT_S)
        if self.error is not None:
            raise self.error
        return RunIndex(experiment, {f"run-{number}": () for number in range(count)}, {})


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def provider():
    return Provider()


@pytest.fixture
def listing(provider, clock):
    return Listing(provider.index, clock=clock)


def runs(listing, experiment=EXPERIMENT):
    return len(listing.index(experiment).names)


def wait_for_background_fetch():
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(TIMEOUT_S)


def test_a_new_list_is_not_fetched_again(listing, provider, clock):
    assert runs(listing) == 1
    clock.now_s = 0.5
    assert runs(listing) == 1
    assert len(provider.asked) == 1


def test_a_list_older_than_two_seconds_is_not_returned(listing, clock):
    assert runs(listing) == 1
    clock.now_s = 2.1
    assert runs(listing) == 2


def test_requests_do_not_wait_for_the_next_list(listing, provider, clock):
    assert runs(listing) == 1
    provider.gate.clear()
    clock.now_s = 0.6
    assert [runs(listing) for _ in range(5)] == [1] * 5
    provider.gate.set()
    wait_for_background_fetch()
    assert (runs(listing), len(provider.asked)) == (2, 2)


def test_only_one_of_many_waiting_threads_fetches(listing, provider, clock):
    assert runs(listing) == 1
    clock.now_s = 2.1
    provider.gate.clear()
    clock.calls = threading.Semaphore(0)
    with ThreadPoolExecutor(8) as pool:
        counts = [pool.submit(runs, listing) for _ in range(8)]
        for _ in counts:
            # Each thread has found the list too old, so it waits or fetches.
            assert clock.calls.acquire(timeout=TIMEOUT_S)
        provider.gate.set()
        assert [count.result(TIMEOUT_S) for count in counts] == [2] * 8
    assert len(provider.asked) == 2


def test_the_age_of_a_slow_list_starts_with_its_arrival(provider, clock):
    def slow(experiment):
        clock.now_s += 30.0
        return provider.index(experiment)

    listing = Listing(slow, clock=clock)
    assert (runs(listing), runs(listing)) == (1, 1)


@pytest.mark.parametrize("error", [ProviderError("gone"), errors.NotFoundError("no such experiment")])
def test_an_error_is_raised_and_the_next_request_fetches_again(listing, provider, error):
    provider.error = error
    with pytest.raises(type(error), match=str(error)):
        listing.index(EXPERIMENT)
    provider.error = None
    assert runs(listing) == 2


@pytest.mark.parametrize("error", [ProviderError("gone"), errors.NotFoundError("no such experiment")])
def test_a_list_that_fails_in_the_background_is_fetched_again(listing, provider, clock, error):
    assert runs(listing) == 1
    provider.error, clock.now_s = error, 0.6
    assert runs(listing) == 1
    wait_for_background_fetch()
    assert runs(listing) == 1
    wait_for_background_fetch()
    assert len(provider.asked) == 3
    clock.now_s = 2.1
    with pytest.raises(type(error), match=str(error)):
        listing.index(EXPERIMENT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_unexpected_error_does_not_stop_later_fetches(listing, provider, clock):
    assert runs(listing) == 1
    provider.error, clock.now_s = RuntimeError("unexpected"), 0.6
    assert runs(listing) == 1
    wait_for_background_fetch()
    provider.error = None
    assert runs(listing) == 1
    wait_for_background_fetch()
    assert runs(listing) == 3


def test_experiments_have_separate_lists(listing, provider):
    other = Experiment(RequestContext(), "other")
    assert (runs(listing), runs(listing, other), runs(listing), runs(listing, other)) == (1, 2, 1, 2)
    assert provider.asked == ["", "other"]


def test_old_lists_of_experiments_are_dropped(listing, clock):
    for number in range(20):
        clock.now_s = 3.0 * number
        runs(listing, Experiment(RequestContext(), f"experiment-{number}"))
    assert list(listing._listed) == ["experiment-19"]
