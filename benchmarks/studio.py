"""How long the studio lets a person wait: ``python -m benchmarks.studio --weights FILE``.

Teach: drawn photos arrive all at once; the time is from the last one's arrival to the lesson. Then
live answers, one after the other. Review: decisions about photos of a long list, each on the disk.
The camera's first answer is measured in a browser (``tests/studio/test_pages.py``).
"""

from __future__ import annotations

import argparse
import asyncio
import io
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app.core.cli import Parser, run
from app.data.corrections import CorrectionsLog
from app.data.sets.synthetic_pets import KINDS, draw_animal
from app.serving.decoders import Decoders
from app.serving.uploads import MB, Upload
from app.studio.teaching import Teaching

LIVE, DECISIONS = 20, 200  # answers and decisions that are timed


def main(argv: Sequence[str]) -> int:
    """Parse ``argv``, measure, print a line for each time; return the exit code."""
    parser = Parser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--weights", help="as train.py has it (default: found or downloaded)")
    parser.add_argument("--photos", type=int, default=40, help="default: %(default)s")
    parser.add_argument("--image-size", type=int, default=160, help="default: %(default)s")
    arguments = parser.parse_args(argv)
    asyncio.run(_teach(arguments.photos, arguments.image_size, arguments.weights))
    _review()
    return 0


async def _teach(photos: int, size: int, weights: str | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        decoders = Decoders(10, 64 * MB, lambda _: None)
        teaching = Teaching(decoders, folder / "data", folder / "runs", size, weights)
        started = time.perf_counter()
        await decoders.start()
        teaching.start()
        await teaching.add(1, [_drawing(KINDS[0], 1000)], "")
        while teaching.state()["classes"][0]["waiting"]:
            await asyncio.sleep(0.05)
        print(f"the network is ready after {time.perf_counter() - started:.1f} s")
        teaching.empty(1)
        uploads = {
            number: [_drawing(kind, seed) for seed in range(photos // 2)]
            for number, kind in enumerate(KINDS, start=1)
        }
        begun = time.perf_counter()
        for number, some in uploads.items():
            await teaching.add(number, some, "")
        arrived, processor = time.perf_counter(), time.process_time()
        await teaching.solve()
        print(f"{photos} photos were read in {arrived - begun:.2f} s")
        print(
            f"the lesson was there {time.perf_counter() - arrived:.2f} s after the last photo, "
            f"with {time.process_time() - processor:.2f} processor seconds"
        )
        print(f"of them out of fold: {teaching.state()['lesson']['score']}")
        times = []
        for seed in range(LIVE):
            upload = _drawing(KINDS[seed % 2], 500 + seed)
            begun = time.perf_counter()
            await teaching.answer(upload)
            times.append(time.perf_counter() - begun)
        print(f"a live answer took {1000 * statistics.median(times):.0f} ms (median of {LIVE})")
        teaching.close()
        await decoders.close()


def _review() -> None:
    with tempfile.TemporaryDirectory() as name:
        log = CorrectionsLog(Path(name) / "corrections.csv")
        times = []
        for number in range(DECISIONS):
            begun = time.perf_counter()
            log.decide(f"cat/{number}.jpg", f"{number:064x}", "class", "dog")
            times.append(time.perf_counter() - begun)
        print(
            f"a decision was on the disk after {1000 * statistics.median(times):.1f} ms (median of "
            f"{DECISIONS}), {1000 * max(times):.0f} ms at most"
        )


def _drawing(kind: str, seed: int) -> Upload:
    file = io.BytesIO()
    generator = np.random.default_rng([7, KINDS.index(kind), seed])
    draw_animal(kind, generator).image.save(file, "JPEG", quality=90)
    return Upload(f"{kind}.{seed}.jpg", file.getvalue())


if __name__ == "__main__":
    raise SystemExit(run(main))
