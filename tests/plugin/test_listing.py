"""The list of runs: asked for seldom, never old, and asked for again after it failed."""

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
    """A clock that stands still until it is put forward, and lets another thread know that somebody looks at it."""

    def __init__(self):
        self.now_s = 0.0
        self.looks = threading.Semaphore(0)

    def __call__(self):
        self.looks.release()
        return self.now_s


class Provider:
    """Lists one run more each time it is asked; while its gate is shut it does not answer."""

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


def wait_for_the_next():
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(TIMEOUT_S)


def test_a_list_is_not_asked_for_again_while_it_is_new(listing, provider, clock):
    assert runs(listing) == 1
    clock.now_s = 0.5
    assert runs(listing) == 1
    assert len(provider.asked) == 1


def test_a_list_of_more_than_two_seconds_is_not_handed_out(listing, clock):
    assert runs(listing) == 1
    clock.now_s = 2.1
    assert runs(listing) == 2


def test_while_the_next_list_is_fetched_nobody_waits_for_it(listing, provider, clock):
    assert runs(listing) == 1
    provider.gate.clear()
    clock.now_s = 0.6
    assert [runs(listing) for _ in range(5)] == [1] * 5
    provider.gate.set()
    wait_for_the_next()
    assert (runs(listing), len(provider.asked)) == (2, 2)


def test_of_many_that_wait_for_a_list_one_asks(listing, provider, clock):
    assert runs(listing) == 1
    clock.now_s = 2.1
    provider.gate.clear()
    clock.looks = threading.Semaphore(0)
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(runs, listing) for _ in range(8)]
        for _ in found:
            # Each has seen that the list is too old, so that it waits or asks.
            assert clock.looks.acquire(timeout=TIMEOUT_S)
        provider.gate.set()
        assert [one.result(TIMEOUT_S) for one in found] == [2] * 8
    assert len(provider.asked) == 2


def test_a_slow_list_counts_from_when_it_came(provider, clock):
    def slow(experiment):
        clock.now_s += 30.0
        return provider.index(experiment)

    listing = Listing(slow, clock=clock)
    assert (runs(listing), runs(listing)) == (1, 1)


@pytest.mark.parametrize("error", [ProviderError("gone"), errors.NotFoundError("no such experiment")])
def test_who_asks_is_told_what_is_wrong_and_the_next_asks_again(listing, provider, error):
    provider.error = error
    with pytest.raises(type(error), match=str(error)):
        listing.index(EXPERIMENT)
    provider.error = None
    assert runs(listing) == 2


@pytest.mark.parametrize("error", [ProviderError("gone"), errors.NotFoundError("no such experiment")])
def test_a_next_list_that_fails_is_fetched_again(listing, provider, clock, error):
    assert runs(listing) == 1
    provider.error, clock.now_s = error, 0.6
    assert runs(listing) == 1
    wait_for_the_next()
    assert runs(listing) == 1
    wait_for_the_next()
    assert len(provider.asked) == 3
    clock.now_s = 2.1
    with pytest.raises(type(error), match=str(error)):
        listing.index(EXPERIMENT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_that_nobody_expects_does_not_end_the_fetching(listing, provider, clock):
    assert runs(listing) == 1
    provider.error, clock.now_s = RuntimeError("unexpected"), 0.6
    assert runs(listing) == 1
    wait_for_the_next()
    provider.error = None
    assert runs(listing) == 1
    wait_for_the_next()
    assert runs(listing) == 3


def test_experiments_have_lists_of_their_own(listing, provider):
    other = Experiment(RequestContext(), "other")
    assert (runs(listing), runs(listing, other), runs(listing), runs(listing, other)) == (1, 2, 1, 2)
    assert provider.asked == ["", "other"]


def test_lists_of_experiments_that_nobody_asks_for_do_not_add_up(listing, clock):
    for number in range(20):
        clock.now_s = 3.0 * number
        runs(listing, Experiment(RequestContext(), f"experiment-{number}"))
    assert list(listing._listed) == ["experiment-19"]
