"""``python -m app sort``: files into folders of their answers, by a plan that can be undone."""

from __future__ import annotations

import argparse
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from os.path import exists, isdir
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from app.core.cli import Parser, run
from app.core.console import progress_bar, say
from app.core.errors import AppError, UsageError
from app.core.sanitise import for_json, for_terminal
from app.scoring.sort_journal import JOURNAL, Journal, Mode, State, Step, open_journal
from app.scoring.sort_steps import CHANGED, NO_ROOM, Left, as_answered, do, undo

if TYPE_CHECKING:
    import pyarrow as pa

ERRORS = "errors"  # the folder of files without an answer
COLUMNS = ["path", "path_bytes", "member", "size", "modified", "label"]
AT_ONCE = 2_000  # steps between two writings of the journal
SHOWN = 20  # folders and reasons
_FORBIDDEN = str.maketrans(dict.fromkeys('/\\:*?"<>|\0', "_"))

EPILOG = """\
examples:
  python -m app sort scores sorted --by label              copies, after a look at the plan
  python -m app sort scores sorted --by label --link --yes
  python -m app sort surely_dogs.parquet dogs --by label   rows that were filtered before
  python -m app sort scores sorted --undo                  everything back as it was

Only --move changes where your photos are. Files that changed since they were answered, and members
of archives, are left where they are. A sort that was interrupted goes on with the same command.

exit code: 0 all were sorted (or undone), 1 some were left, 2 wrong usage
"""


def main(argv: Sequence[str]) -> int:
    """Parse ``argv``, sort or undo, return the exit code."""
    arguments = parser().parse_args(argv)
    target: Path = arguments.target
    path = target / JOURNAL
    if arguments.undo:
        if not exists(path):
            raise UsageError(
                f"expected a folder that was sorted into; received {target}, which has no {JOURNAL}"
            )
        with open_journal(path) as journal:
            left = undo_all(journal, target)
        return finish_undo(target, path, left)
    from app.scoring.parts import require_pyarrow

    require_pyarrow()
    made = not exists(target)
    if not made and not exists(path) and (not isdir(target) or any(target.iterdir())):
        raise UsageError(
            f"expected a new or empty folder to sort into; received {target}, which is something "
            "else; name another"
        )
    target.mkdir(parents=True, exist_ok=True)
    unwanted = False
    try:
        with open_journal(path) as journal:
            if journal.get("agreed"):
                refuse_other_sort(journal, arguments)
                if arguments.plan:
                    print_plan(journal, target)
                    return 0
            else:
                unwanted = True
                made = made or bool(journal.get("made"))
                plan(journal, arguments, made)
                if arguments.plan:
                    print_plan(journal, target)
                    return 0
                show_plan(journal)
                if not (arguments.yes or asked()):
                    return 1
                with journal.transaction():
                    journal.set(agreed="yes")
                unwanted = False
            return carry_out(journal, target)
    finally:
        if unwanted:
            remove_journal(path, target if made else None)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = Parser(
        description="Sort files into folders of what they show.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument(
        "results", type=Path, metavar="RESULTS", help="the --output of score, or a Parquet file"
    )
    result.add_argument("target", type=Path, metavar="TARGET", help="a new or empty folder")
    result.add_argument("--by", choices=["label"], default="label", help="default: %(default)s")
    mode = result.add_mutually_exclusive_group()
    for name, text in (
        ("copy", "copy the files, with their times (default)"),
        ("link", "make symbolic links to them"),
        ("move", "move them"),
    ):
        mode.add_argument(f"--{name}", dest="mode", action="store_const", const=name, help=text)
    result.add_argument("--yes", action="store_true", help="do not ask after the plan")
    instead = result.add_mutually_exclusive_group()
    instead.add_argument(
        "--plan",
        action="store_true",
        help="print what would go where, or what is left to do of a sort that was interrupted, one "
        "JSON object a line",
    )
    instead.add_argument(
        "--undo", action="store_true", help="take back what was sorted into TARGET, or a part of it"
    )
    return result


def refuse_other_sort(journal: Journal, arguments: argparse.Namespace) -> None:
    """Refuse to go on with another sort than the one that was begun in the target.

    Raises:
        UsageError: with what was begun.
    """
    if journal.get("undo"):
        raise UsageError(
            f"expected a sort; received {arguments.target}, whose --undo was interrupted: run it "
            "again"
        )
    mode, results = journal.get("mode"), journal.get("results")
    if (arguments.mode or mode) != mode or os.fspath(arguments.results.resolve()) != results:
        raise UsageError(
            f"expected {results} and --{mode}, as {arguments.target} was begun; received others; "
            "name another target, or --undo first"
        )


def plan(journal: Journal, arguments: argparse.Namespace, made: bool) -> None:
    """Make the plan.

    Raises:
        UsageError: when there are no answers, or no room.
    """
    mode: Mode = arguments.mode or get_args(Mode)[0]
    with journal.transaction():
        journal.clear()
        for each in tables(arguments.results):
            plan_rows(journal, each, mode)
        results = os.fspath(arguments.results.resolve())
        journal.set(mode=mode, results=results, made="yes" if made else "")
    check_room(journal, mode, arguments.target)


def tables(results: Path) -> Iterator[pa.Table]:
    """Yield the rows of answers, some 10,000 at a time.

    Raises:
        UsageError: when there are none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from app.scoring.parts import part_files, schema
    from app.scoring.score import PART_ROWS, PARTS

    wanted = pa.schema([schema([]).field(name) for name in COLUMNS])
    paths = sorted(part_files(results / PARTS)) if isdir(results) else [results]
    try:
        for path in paths:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(PART_ROWS, columns=COLUMNS):
                    table = pa.Table.from_batches([batch])
                    if set(table.column_names) != set(COLUMNS):
                        raise pa.ArrowInvalid(f"no columns {', '.join(COLUMNS)}")
                    if table["path"].null_count:
                        raise pa.ArrowInvalid("a row has no path")
                    # What programs that filter wrote in their own types: times in µs, for example.
                    yield table.select(COLUMNS).cast(wanted)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"expected answers of python -m app score; received {path} ({reason})"
        ) from error
    if not paths:
        raise UsageError(
            f"expected answers of python -m app score; received {results}, which has none"
        )


def plan_rows(journal: Journal, table: pa.Table, mode: Mode) -> None:
    """Plan a step for each row, or note why its file is left."""
    import pyarrow as pa

    from app.scoring.parts import exact_paths

    columns = [table[name].to_pylist() for name in ("member", "size", "label")]
    times = table["modified"].cast(pa.int64()).to_pylist()
    for path, member, size, label, time in zip(exact_paths(table), *columns, times, strict=True):
        folder = folder_of(label)
        if reason := reason_to_leave(path, member, size, time, mode):
            journal.leave(path, folder, reason)
        else:
            journal.plan(path, folder, size, time)


def folder_of(label: str | None) -> str:
    """Return the name of the folder of a label.

    A class that is called as the folder of errors or as the journal gets ``_``.
    """
    if label is None:
        return ERRORS
    name = label.translate(_FORBIDDEN).strip().rstrip(". ") or "_"
    return f"{name}_" if name.casefold() in (ERRORS, JOURNAL) else name


def reason_to_leave(
    path: bytes, member: str | None, size: int | None, time: int | None, mode: Mode
) -> str:
    """Return why a file is not sorted; empty when it is."""
    if member is not None:
        return "in an archive: unpack it"
    try:
        status = os.lstat(path) if mode == "move" else os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return "not there"
    if not stat.S_ISREG(status.st_mode):
        return "a link" if stat.S_ISLNK(status.st_mode) else "no file"
    return "" if as_answered(status, size, time) else CHANGED


def check_room(journal: Journal, mode: Mode, target: Path) -> None:
    """Refuse a sort that the disk has no room for.

    Raises:
        UsageError: with the bytes that are missing.
    """
    device = target.stat().st_dev
    needed = 0
    for steps in journal.steps("planned", at_once=AT_ONCE):
        for step in steps:
            if mode == "copy" or (mode == "move" and step.source.stat().st_dev != device):
                needed += step.size
    free = shutil.disk_usage(target).free
    if needed > free:
        raise UsageError(
            f"expected {needed:,} free bytes for {target}; received {free:,}; make room, name a "
            "target on another disk, or add --link"
        )


def show_plan(journal: Journal) -> None:
    """Say what would go where."""
    begins = {"copy": "To copy", "link": "To link", "move": "To move"}[str(journal.get("mode"))]
    totals = journal.totals()
    for folder, files, size, renamed in totals[:SHOWN]:
        numbers = f", {renamed:,} of them numbered, since their names are taken" if renamed else ""
        say(f"{begins} to {folder}/: {files:,} ({size / 1e6:,.1f} MB){numbers}")
    if len(totals) > SHOWN:
        files = sum(row[1] for row in totals[SHOWN:])
        say(f"{begins} to {len(totals) - SHOWN:,} other folders: {files:,}")
    say_left(journal)


def say_left(journal: Journal) -> None:
    """Say which files stay where they are, and why."""
    for reason, files, first in journal.left()[:SHOWN]:
        say(f"{files:,} left: {reason} (the first: {os.fsdecode(first)})")


def print_plan(journal: Journal, target: Path) -> None:
    """Print each step that is not done as JSON."""
    for steps in journal.steps("planned", "begun", at_once=AT_ONCE):
        for step in steps:
            print(for_json({"from": str(step.source), "to": str(target / step.target)}))
    say_left(journal)


def asked() -> bool:
    """Ask whether the plan is to be carried out.

    Raises:
        UsageError: when there is no terminal to ask at.
    """
    if not sys.stdin.isatty():
        raise UsageError("expected --yes, since nobody can be asked here; nothing was changed")
    print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def carry_out(journal: Journal, target: Path) -> int:
    """Do all steps that are not done; return the exit code."""
    mode: Mode = journal.get("mode")  # type: ignore[assignment]
    for folder in journal.folders():
        (target / folder).mkdir(exist_ok=True)
    take(journal, target, f"Sorting ({mode})", do, forwards=True)
    for folder, files, _, _ in journal.totals():
        print(f"{for_terminal(folder)}/  {files:,}")
    say_left(journal)
    say(f"python -m app sort {journal.get('results')} {target} --undo takes it back")
    return 1 if journal.left() else 0


def take(
    journal: Journal,
    target: Path,
    title: str,
    step_of: Callable[[Mode, Step, Path], None],
    *,
    forwards: bool,
) -> dict[str, int]:
    """Take all steps in one direction; return the reasons why some were not, and how many.

    Raises:
        AppError: when the disk is full; what was done is in the journal.
    """
    mode: Mode = journal.get("mode")  # type: ignore[assignment]
    states: tuple[State, State] = ("planned", "begun") if forwards else ("begun", "done")
    end: State = "done" if forwards else "planned"
    reasons: dict[str, int] = {}
    with progress_bar() as bar:
        task = bar.add_task(title, total=journal.count(*states), unit="files")
        for steps in journal.steps(*states, at_once=AT_ONCE):
            journal.mark(steps, "begun")
            notes: dict[int, str] = {}
            for step in steps:
                try:
                    step_of(mode, step, target)
                except Left as reason:
                    notes[step.number] = str(reason)
                except OSError as error:
                    if error.errno in NO_ROOM:
                        raise AppError(
                            f"expected room on the disk; received: {error.strerror}; make room, "
                            "then run the same command again, or --undo"
                        ) from error
                    notes[step.number] = error.strerror or str(error)
            if hasattr(os, "sync"):
                os.sync()  # names too reach the disk before the journal says so
            for note in notes.values():
                reasons[note] = reasons.get(note, 0) + 1
            finished = [step for step in steps if forwards or step.number not in notes]
            journal.mark(finished, end, notes)
            bar.advance(task, len(steps))
    return reasons


def undo_all(journal: Journal, target: Path) -> int:
    """Take all steps back; return how many could not be."""
    with journal.transaction():
        journal.set(undo="yes")
    reasons = take(journal, target, "Undoing", undo, forwards=False)
    for reason, files in reasons.items():
        say(f"{files:,} not undone: {reason}")
    for folder in journal.folders():
        with suppress(OSError):  # it holds what could not be undone, or what others put there
            (target / folder).rmdir()
    return sum(reasons.values())


def finish_undo(target: Path, path: Path, left: int) -> int:
    """Remove the journal when nothing is left to undo, and the target if the sort had made it."""
    if left:
        return 1
    with open_journal(path) as journal:
        made = journal.get("made")
    remove_journal(path, target if made else None)
    say("all was undone")
    return 0


def remove_journal(path: Path, target: Path | None) -> None:
    """Remove the journal, SQLite's own beside it, and the target if the sort had made it."""
    for each in (path, path.with_name(f"{path.name}-journal")):
        each.unlink(missing_ok=True)
    if target is not None:
        with suppress(OSError):  # others have put something there
            target.rmdir()


if __name__ == "__main__":
    sys.exit(run(main))
