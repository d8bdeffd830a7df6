"""Bytes → array, a million times: ``python -m tests.fuzz.images --steps 1000000``.

Every step breaks a valid file and decodes it. What comes out must be pixels or an ``ImageError``,
within the time and the memory, with nothing on stderr. What does otherwise is kept in ``--finds``.
With ``atheris`` installed, ``--coverage`` lets the branches of Pillow's Python code lead the way.
"""

from __future__ import annotations

import functools
import random
import sys
from pathlib import Path

from .mutations import mutated
from .runner import Target, main
from .seeds import seeds


def check(data: bytes) -> str:
    """Decode once; return the format, or ``refused``.

    Raises:
        ValueError: when what came out is neither pixels nor a reason.
    """
    import numpy as np

    from app.core.errors import ImageError
    from app.data.decode import decode

    try:
        pixels, found = decode(data)
    except ImageError as error:
        if not str(error).strip() or "\n" in str(error):
            raise ValueError(f"no reason: {error!r}") from error
        return "refused"
    if pixels.dtype != np.uint8 or pixels.shape[2:] != (3,) or not pixels.size:
        raise ValueError(f"no pixels: {pixels.dtype} {pixels.shape}")
    return found


@functools.cache
def valid() -> list[bytes]:
    """Return the files that are broken."""
    return list(seeds().values())


def make(step: int) -> bytes:
    """Return the input of a step: a broken file."""
    source = random.Random(step)
    return mutated(source.choice(valid()), valid(), source)


def follow_coverage(steps: int, finds: Path) -> None:
    """Let atheris choose the bytes by the branches that they reach; does not return."""
    import atheris

    with atheris.instrument_imports(include=["PIL", "app"]):
        import app.data.decode

        app.data.decode.Image.init()  # now, because plugins that are imported later go unwatched
    corpus = finds / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for name, data in seeds().items():
        (corpus / name.replace(" ", "-")).write_bytes(data)

    def once(data: bytes) -> None:
        check(data)

    limits = ["-max_len=4096", "-timeout=10", "-rss_limit_mb=2048"]
    words = [sys.argv[0], f"-runs={steps}", f"-artifact_prefix={finds}/", *limits, str(corpus)]
    atheris.Setup(words, once)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main(Target("tests.fuzz.images", make, check), follow_coverage))
