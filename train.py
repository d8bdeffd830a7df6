"""Train a classifier on a folder of photos: ``python train.py --data cats_dogs/``."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from app.cli import run
from app.config import Backbone, CacheMode, Precision, TrainConfig, help_of

EPILOG = """\
examples:
  python -m app.fetch small cats_dogs        get 3,000 photos of cats and dogs
  python train.py --data cats_dogs           train on them; a new folder appears in runs/
  python train.py --data cats_dogs --smoke   walk the whole road in seconds, learn little
  python predict.py photo.jpg                ask the newest run
"""


def main(argv: Sequence[str]) -> int:
    """Parse ``argv``, train, print a table; return the exit code."""
    config = parse(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up lines help nobody
    from app.pipeline import run as train

    finished = train(config)
    from app.summary import print_summary

    print_summary(finished)
    return 0


def parse(argv: Sequence[str]) -> TrainConfig:
    """Turn command-line arguments into a ``TrainConfig``; the help texts are its sentences."""
    parser = argparse.ArgumentParser(
        description="Turn a folder of labelled photos into a trained, calibrated classifier.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}

    def add(flag: str, **options: object) -> None:
        name = flag.lstrip("-").replace("-", "_")
        text, default = help_of(TrainConfig, name), defaults[name]
        if default is not None and not options.get("required"):
            shown = ",".join(default) if isinstance(default, tuple) else default
            text += f" (default: {shown})"
        parser.add_argument(flag, default=default, help=text, **options)  # type: ignore[arg-type]

    add("--data", type=Path, required=True, metavar="DIR")
    add("--exclude", type=Path, metavar="FILE")
    add("--run", metavar="NAME")
    add("--runs", type=Path, metavar="DIR")
    add("--stages", type=lambda text: tuple(text.split(",")), metavar="NAMES")
    add("--views", type=int, metavar="N")
    add("--image-size", type=int, metavar="PIXELS")
    add("--epochs", type=int, metavar="N")
    add("--seed", type=int, metavar="N")
    add("--mirror", action=argparse.BooleanOptionalAction)
    add("--head-strength", type=float, metavar="C")
    add("--weights", metavar="PATH")
    add("--backbone", choices=get_args(Backbone))
    add("--precision", choices=get_args(Precision))
    add("--cache", choices=get_args(CacheMode))
    add("--cache-limit", type=float, metavar="GB")
    parser.add_argument(
        "--no-report", dest="report", action="store_false", help="do not write report.html"
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="the same road in its smallest form, to see it run: 64 pixels, 1 view, 1 epoch",
    )
    arguments = vars(parser.parse_args(argv))
    smoke = arguments.pop("smoke")
    config = TrainConfig(**arguments)
    return config.smoke() if smoke else config


if __name__ == "__main__":
    sys.exit(run(main))
