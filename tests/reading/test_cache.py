"""The cache is up to date, bounded, and safe for threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tb_nanwatch.reading.cache import StampedCache


def test_a_value_is_valid_as_long_as_its_stamp():
    cache = StampedCache(100, len)
    cache.put("run", 1, value="old")
    assert cache.get("run", 1) == "old"
    assert cache.get("run", 2) is None
    cache.put("run", 2, value="new")
    assert (cache.get("run", 1), cache.get("run", 2)) == (None, "new")


def test_the_least_recently_used_value_goes_first():
    cache = StampedCache(6, len)
    for key in "abc":
        cache.put(key, 0, value="xx")
    cache.get("a", 0)
    cache.put("d", 0, value="xx")
    assert [key for key in "abcd" if cache.get(key, 0)] == ["a", "c", "d"]


def test_a_replaced_value_no_longer_counts():
    cache = StampedCache(6, len)
    for stamp in range(10):
        cache.put("a", stamp, value="xxx")
    cache.put("b", 0, value="xxx")
    assert (cache.get("a", 9), cache.get("b", 0)) == ("xxx", "xxx")


def test_the_newest_value_stays_even_above_the_budget():
    cache = StampedCache(6, len)
    cache.put("a", 0, value="xx")
    cache.put("b", 0, value="x" * 50)
    assert (cache.get("a", 0), len(cache.get("b", 0))) == (None, 50)


def test_threads_keep_the_total_weight_correct():
    cache = StampedCache(50, len)

    def work(seed):
        for turn in range(300):
            cache.put((seed * turn) % 11, turn % 3, value="x" * (turn % 9))
            cache.get(turn % 11, turn % 3)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    for key in range(100, 106):
        cache.put(key, 0, value="x" * 10)
    assert [bool(cache.get(key, 0)) for key in range(100, 106)] == [False, True, True, True, True, True]
