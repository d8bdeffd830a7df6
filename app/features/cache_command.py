"""Shows the stores of cached activations and clears them: ``python -m app cache``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from app.core.cli import Parser
from app.core.config import TrainConfig, help_of
from app.core.console import say
from app.core.errors import UsageError
from app.core.sanitise import for_json, for_terminal
from app.features.cache_folder import FEATURES_FOLDER, StoreInfo, clear, list_stores, not_ours

ALL = "all stores"  # --clear without a key; an empty one is a mistake
EPILOG = """\
examples:
  python -m app cache                           what lies in runs/.features
  python -m app cache --json                    the same for a program
  python -m app cache --clear                   remove everything; a next run computes it anew
  python -m app cache --clear --older-than 30   remove what no run has used for 30 days
"""


def main(argv: Sequence[str]) -> int:
    """Show the stores as a table or as JSON, or clear them; return the exit code."""
    parser = Parser(
        description="Show or clear the cache of frozen activations, which all runs share.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    runs = f"{help_of(TrainConfig, 'runs')} (default: {TrainConfig.runs})"
    parser.add_argument("--runs", type=Path, default=TrainConfig.runs, metavar="DIR", help=runs)
    parser.add_argument("--json", action="store_true", help="write a JSON list of the stores")
    parser.add_argument(
        "--clear", nargs="?", const=ALL, metavar="KEY", help="remove one store, or all of them"
    )
    parser.add_argument(
        "--older-than",
        type=float,
        metavar="DAYS",
        help="with --clear: only shards that no run has opened for so many days",
    )
    arguments = parser.parse_args(argv)
    folder = arguments.runs / FEATURES_FOLDER
    if arguments.clear is not None:
        _clear(folder, None if arguments.clear is ALL else arguments.clear, arguments.older_than)
    elif arguments.older_than is not None:
        raise UsageError("expected --older-than together with --clear; received it alone")
    stores = list_stores(folder)
    if arguments.json:
        print(for_json([asdict(store) for store in stores], indent=2))
    elif stores:
        _print_table(stores)
    else:
        say(f"no cached activations in {folder}")
    if others := not_ours(folder):
        say(f"{others} other files and folders in {folder} are not proved to be ours and stay")
    return 0


def _clear(folder: Path, key: str | None, days: float | None) -> None:
    keys = [store.key for store in list_stores(folder)]
    if key is not None and key not in keys:
        raise UsageError(
            f"expected the key of a store in {folder} ({', '.join(keys) or 'there is none'}); "
            f"received {key}; python -m app cache shows them"
        )
    if days is not None and not days >= 0:
        raise UsageError(f"expected --older-than to be 0 days or more; received {days}")
    removed, freed = clear(folder, key, older_than=86_400 * (days or 0.0))
    say(f"removed {removed} cached shards ({decimal(freed)})")


def _print_table(stores: Sequence[StoreInfo]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("key", "cut", "pixels", "precision", "backbone", "rows", "size", "last used"):
        right = title in ("pixels", "rows", "size")
        table.add_column(title, justify="right" if right else "left", no_wrap=True)
    for store in stores:
        used = store.last_used and datetime.fromisoformat(store.last_used).astimezone()
        told = (store.cut, store.image_size, store.precision, store.backbone)
        table.add_row(
            for_terminal(store.key),
            *(for_terminal(str(value or "?")) for value in told),
            f"{store.rows:,}",
            decimal(store.bytes),
            f"{used:%Y-%m-%d %H:%M}" if used else "never",
        )
    # As wide as it must be: a key that is cut short could not be given to --clear.
    console = Console(highlight=False, markup=False, emoji=False, width=200)
    console.print(table, soft_wrap=True)
    console.print(f"\n{decimal(sum(store.bytes for store in stores))} in all", soft_wrap=True)
