"""Train a classifier on a folder of photos: ``python train.py --data cats_dogs/``."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from app.core.cli import Parser, leave, run
from app.core.config import (
    ALL_DEVICES,
    AUTO_SIZE,
    WHERE,
    Backbone,
    CacheMode,
    Engine,
    Layout,
    Precision,
    TrainConfig,
    help_of,
    read_config,
)
from app.core.environment import other_versions
from app.core.errors import BundleError, UsageError
from app.core.run_folder import Run

EPILOG = """\
examples:
  python -m app fetch small cats_dogs        get 3,000 photos of cats and dogs
  python train.py --data cats_dogs --check   what would be trained on? nothing is written
  python train.py --data cats_dogs           train on them; a new folder appears in runs/
  python train.py --data cats_dogs --smoke   every step in seconds; it learns little
  python train.py --data cats_dogs --set block5.learning_rate=3e-5 --set block5.epochs=6
                                             with other settings of a stage
  python train.py --resume runs/NAME         resume an interrupted run
  python predict.py photo.jpg                predict with the newest run
"""


def main(argv: Sequence[str]) -> int:
    """Parse ``argv``, train, print a table; return the exit code."""
    given = flags(argv)
    if given.pop("check", False):
        from app.check import check

        as_json = given.pop("json", False)
        check(settings(given), as_json=as_json)
        return 0
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up lines help nobody
    if "resume" in given:
        refuse_beside_resume(given)
        from app.pipeline import resume

        where = {name: given[name] for name in WHERE if name in given}
        finished = resume(given["resume"], report=given.get("report", True), where=where)
    else:
        config = settings(given)
        from app.pipeline import train

        finished = train(config)
    from app.report.report import print_summary

    print_summary(finished)
    return 0


def parse(argv: Sequence[str]) -> TrainConfig:
    """Turn command-line arguments into a ``TrainConfig``."""
    return settings(flags(argv))


def settings(given: dict[str, Any]) -> TrainConfig:
    """Turn the given flags into a ``TrainConfig``; they override ``--smoke``.

    ``--smoke`` overrides the settings of ``--config``, and those the defaults. The new run does not
    take the name of the file's run.
    """
    given = dict(given)
    smoke, path = given.pop("smoke", False), given.pop("config", None)
    config = TrainConfig()
    if path is not None:
        config = dataclasses.replace(read_config(path), run=None)
        report_other_versions(Run(path.parent))
    if smoke:
        config = config.smoke()
    kept = [
        text
        for text in config.stage_settings
        if text.partition(".")[0] in given.get("stages", config.stages)
        and not (text.startswith("block") and text.partition("=")[0].partition(".")[2] in given)
    ]
    given["stage_settings"] = (*kept, *given.get("stage_settings", ()))
    given["corrections"] = (*config.corrections, *given.get("corrections", ()))
    return dataclasses.replace(config, **given)


def report_other_versions(run: Run) -> None:
    """Print which versions made a run that are not those installed, if it is known."""
    from app.core.console import say

    with contextlib.suppress(BundleError):
        made = run.made_with()
        if made.versions and (others := other_versions(made.backend, made.versions)):
            say(f"{run.folder} was made with other versions, so figures may differ: {others}")


def refuse_beside_resume(given: dict[str, Any]) -> None:
    """Raise ``UsageError`` for settings, which a resumed run has already."""
    beside = ("resume", "report", *WHERE)
    others = [f"--{name.replace('_', '-')}" for name in given if name not in beside]
    if others:
        raise UsageError(
            f"expected --resume with nothing but --no-report and --ray; received "
            f"{', '.join(others)} as well; a resumed run keeps its settings"
        )


def flags(argv: Sequence[str]) -> dict[str, Any]:
    """Return what was given on the command line; the help texts are ``TrainConfig``'s sentences."""
    parser = Parser(
        description="Turn a folder of labelled photos into a trained, calibrated classifier.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}

    def add(flag: str, dest: str = "", **options: object) -> None:
        name = dest or flag.lstrip("-").replace("-", "_")
        text, default = help_of(TrainConfig, name), defaults[name]
        if default not in (None, ()) and name != "data":
            shown = ",".join(default) if isinstance(default, tuple) else default
            shown = "auto" if name == "image_size" else shown
            text += f" (default: {shown})"
        parser.add_argument(flag, dest=name, help=text, **options)  # type: ignore[arg-type]

    add("--data", type=Path, metavar="DIR")
    add("--exclude", type=Path, metavar="FILE")
    add("--exclude-from-test", action=argparse.BooleanOptionalAction)
    add("--corrections", action="append", type=Path, metavar="FILE")
    add("--layout", choices=get_args(Layout))
    add("--labels", type=Path, metavar="FILE")
    add("--join-case", action=argparse.BooleanOptionalAction)
    add("--neither", type=Path, metavar="DIR")
    add("--run", metavar="NAME")
    add("--runs", type=Path, metavar="DIR")
    add("--stages", type=lambda text: tuple(text.split(",")), metavar="NAMES")
    add("--views", type=int, metavar="N")
    add("--image-size", type=image_size, metavar="PIXELS")
    add("--epochs", type=int, metavar="N")
    add("--patience", type=int, metavar="N")
    add("--budget", type=float, metavar="MINUTES")
    add("--set", "stage_settings", action="append", metavar="STAGE.NAME=VALUE")
    add("--seed", type=int, metavar="N")
    add("--mirror", action=argparse.BooleanOptionalAction)
    add("--head-strength", type=float, metavar="C")
    add("--weights", metavar="PATH")
    add("--backbone", choices=get_args(Backbone))
    add("--precision", choices=get_args(Precision))
    add("--engine", choices=get_args(Engine))
    add("--devices", type=devices, metavar="N")
    add("--cache", choices=get_args(CacheMode))
    add("--cache-limit", type=float, metavar="GB")
    add("--ray", metavar="ADDRESS")
    add("--workers", type=int, metavar="N")
    add("--worker-cpus", type=int, metavar="N")
    add("--worker-gpus", type=int, metavar="N")
    add("--deterministic", action=argparse.BooleanOptionalAction)
    add("--log", metavar="NAMES")
    add("--export", metavar="NAMES")
    parser.add_argument(
        "--check",
        action="store_true",
        help="read, judge and split the photos, say what training would take, and end; nothing is "
        "written",
    )
    parser.add_argument(
        "--json", action="store_true", help="with --check: one JSON object on standard output"
    )
    parser.add_argument(
        "--no-report", dest="report", action="store_false", help="do not write report.html"
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="every step in its smallest form: 64 pixels, 1 view, 1 epoch; other flags override it",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="use the settings of a run's config.json; flags override the file",
    )
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        help="resume an interrupted run, given by its folder, such as runs/NAME",
    )
    known, unknown = parser.parse_known_args(argv)
    given = vars(known)
    if not given.keys() & {"data", "config", "resume"}:
        parser.error("the following arguments are required: --data (or --config, or --resume)")
    if "json" in given and "check" not in given:
        parser.error("argument --json: only with --check")
    if "check" in given and "resume" in given:
        parser.error("argument --check: not with --resume, whose photos are checked anyway")
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return given


def devices(text: str) -> int:
    """Read ``all`` or a number, from 1."""
    if text == "all":
        return ALL_DEVICES
    if (count := int(text)) == ALL_DEVICES:
        raise ValueError
    return count


def image_size(text: str) -> int:
    """Read ``auto`` or a number of pixels; 0, which stands for ``auto``, is no number of them."""
    if text == "auto":
        return AUTO_SIZE
    if (pixels := int(text)) == AUTO_SIZE:
        raise ValueError
    return pixels


if __name__ == "__main__":
    leave(run(main))
