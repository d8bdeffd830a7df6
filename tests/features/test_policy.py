"""The two rules of the cache, by hand-computed cases."""

import pytest

from app.features.policy import Space, cache_pays

GB = 10**9


@pytest.mark.parametrize(
    ("needed", "removed"),
    [
        (3 * GB, 0),  # 40 + 3 are within 50
        (10 * GB, 0),
        (12 * GB, 2 * GB),  # else 52 would be used
        (50 * GB, 40 * GB),
    ],
)
def test_the_limit_says_how_much_must_go(needed, removed):
    space = Space(free=200 * GB, used=40 * GB, limit=50 * GB)
    assert space.to_remove(needed) == removed


def test_at_most_half_of_the_free_disk_is_taken():
    space = Space(free=20 * GB, used=5 * GB, limit=100 * GB)
    assert space.to_remove(10 * GB) == 0
    assert space.to_remove(12 * GB) == 4 * GB  # 24 would then be free
    assert space.fits(12 * GB, kept=0)
    assert space.fits(12 * GB, kept=1 * GB)
    assert not space.fits(12 * GB, kept=2 * GB)  # only 3 of the 4 may go


def test_what_the_run_needs_counts_against_the_limit():
    space = Space(free=500 * GB, used=40 * GB, limit=50 * GB)
    assert space.fits(50 * GB, kept=0)
    assert not space.fits(51 * GB, kept=0)
    assert space.fits(20 * GB, kept=30 * GB)
    assert not space.fits(21 * GB, kept=30 * GB)


def test_what_is_there_already_fits_under_any_limit():
    space = Space(free=0, used=40 * GB, limit=1 * GB)
    assert space.fits(0, kept=40 * GB)
    assert not space.fits(1, kept=40 * GB)


def test_room_is_told_in_words():
    told = str(Space(free=70 * GB, used=1_840_000_000, limit=50 * GB))
    assert told == (
        "70.0 GB of disk free, half of it for the cache; 1.8 GB used of the limit of 50.0 GB"
    )


TIMES = {"prefix": 0.2, "write": 0.01, "reading": 30.0}


@pytest.mark.parametrize(
    ("changed", "pays"),
    [
        ({}, True),  # 100 x 0.21 + 30 = 51 s against 300 x 0.2 = 60 s
        ({"reading": 38.9}, True),
        ({"reading": 39.1}, False),  # a slow disk: read 300 times a row
        ({"write": 0.09}, True),
        ({"write": 0.11}, False),
        ({"lacking": 1000}, False),  # many views, few epochs
        ({"lacking": 0}, True),
        ({"passes": 250}, False),
        ({"prefix": 0.02, "reading": 5.1}, False),  # a fast GPU: 3 + 5.1 against 6
        ({"prefix": 0.02, "reading": 2.9}, True),
    ],
)
def test_the_cache_pays_where_it_takes_less_time(changed, pays):
    assert cache_pays(**{**TIMES, "lacking": 100, "passes": 300, **changed})[0] is pays


def test_both_estimates_are_told():
    assert cache_pays(**TIMES, lacking=100, passes=300)[1] == (
        "51.0 s to compute and read 100 views, against 60.0 s to compute 300 fresh ones over "
        "all epochs"
    )
