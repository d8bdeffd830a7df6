"""A shard takes a worker about a minute, however fast the worker is."""

from __future__ import annotations

import pytest

from app.inference.predictor import BATCH
from app.scoring.shard_size import LEAST, SECONDS, ShardSize


@pytest.mark.parametrize("rate", [1, 12, 100])
def test_a_shard_takes_about_a_minute(rate: float) -> None:
    size = ShardSize(files=10**6, workers=2, most=10_000)
    assert size() == LEAST * BATCH  # nothing is measured yet
    size.measured(128, 128 / rate)
    assert size() / rate == pytest.approx(SECONDS, abs=BATCH / rate)
    assert size() % BATCH == 0


def test_the_latest_shards_count() -> None:
    size = ShardSize(files=10**6, workers=1, most=10_000)
    for seconds in (1000, 1, 1):  # the first worker had to wait for the disk
        size.measured(100, seconds)
    assert size() == 6_000


def test_no_shard_is_larger_than_a_part_and_each_worker_gets_several() -> None:
    fast = ShardSize(files=10**6, workers=2, most=300)
    fast.measured(100, 0.001)
    assert fast() == 300
    few = ShardSize(files=16_000, workers=4, most=10_000)
    few.measured(100, 0.001)
    assert few() == 496  # 32 shards and a rest
    slow = ShardSize(files=10**6, workers=2, most=10_000)
    slow.measured(1, 1000)
    assert slow() == BATCH
