"""How many files a worker is given at once: as many as it answers in about a minute."""

from __future__ import annotations

from collections import deque

from app.inference.predictor import BATCH

# A worker that dies loses at most so much of its work, and at the end the others wait for the last
# one as long at most. The start of a shard, at which nothing is decoded yet, takes less than a
# second of it.
SECONDS = 60.0
SHARDS_A_WORKER = 8  # at least; so at the end at most an eighth of a worker's time is waited for
# Batches of a shard of few files, and of one whose rate nobody knows yet: of a shorter one too much
# is decoded while the network waits.
LEAST = 16


class ShardSize:
    """The number of files of the next shard, which follows the measured rate of the workers.

    Call it for the number, a multiple of a batch.

    Args:
        files: that wait.
        workers: that answer them.
        most: rows of a part.
    """

    def __init__(self, files: int, workers: int, most: int) -> None:
        share = max(LEAST, files // (workers * SHARDS_A_WORKER * BATCH)) * BATCH
        self._most = min(most, share)
        self._latest: deque[tuple[int, float]] = deque(maxlen=2 * workers)

    def measured(self, files: int, seconds: float) -> None:
        """Note in how many seconds a worker answered so many files; the latest shards count."""
        self._latest.append((files, seconds))

    def __call__(self) -> int:
        """Return the number of files of the next shard."""
        if not self._latest:
            return min(self._most, LEAST * BATCH)
        rate = sum(files for files, _ in self._latest) / sum(took for _, took in self._latest)
        return min(self._most, max(1, round(SECONDS * rate / BATCH)) * BATCH)
