"""Predict with a trained classifier: ``python predict.py photo.jpg``."""

from __future__ import annotations

import argparse
import csv
import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from os.path import exists, isdir, lexists
from pathlib import Path

from app.core.cli import Parser, run, tell
from app.core.errors import ImageError, UsageError
from app.core.folder_tree import scan
from app.core.labels import NEITHER
from app.core.sanitise import for_csv, for_json, for_terminal
from app.core.text_file import read_text, row_readings, table_rows
from app.inference.arguments import add_bundle_arguments, bundle_folder
from app.inference.prediction import TOP, Prediction, unopened_prediction
from app.inference.wording import in_words, percentage

EPILOG = """\
examples:
  python predict.py photo.jpg                    with the newest run in runs/
  python predict.py holiday/ --json              a folder and all below it, one JSON object a line
  find . -name '*.jpg' -print0 | python predict.py - --csv > answers.csv
  python predict.py photo.jpg --explain why/     and why: why/photo.jpg.heat.png
  python predict.py --run first 'pets/*.jpg'     a run by its name

answers: a class, surely (99 % or more), probably (66 % or more) or perhaps, and what else it could
be (10 % or more); neither, when the photo is unlike the training photos; unsure, when no class is
likely enough

exit code: 0 all were answered, 1 some were not, 2 wrong usage or no trained classifier,
128 and the number of the signal that stopped it (Ctrl-C: 130)
"""


def main(argv: Sequence[str]) -> int:
    """Parse ``argv``, predict for every file, return the exit code."""
    arguments = parser().parse_args(argv)
    paths = list(expand(arguments.paths))
    if not paths:
        raise UsageError(f"expected photos; received none in {', '.join(arguments.paths)}")
    from app.inference.bundle_format import Bundle  # brings msgspec: not for --help

    folder = bundle_folder(arguments)
    write = Output(arguments.format, Bundle.read(folder).classes, paths)
    if arguments.explain is None and not any(map(exists, paths)):
        for path in paths:  # mistyped: reported at once, nothing is loaded
            write(unopened_prediction(path))
        return 1
    from app.inference.explanations import Explanations
    from app.inference.predictor import Classifier  # brings NumPy and ONNX Runtime: not for --help

    explanations = Explanations(arguments.explain, arguments.paths) if arguments.explain else None
    classifier = Classifier(
        folder, arguments.min_confidence, arguments.precision, arguments.engine, len(paths)
    )
    all_answered = True
    for answer in classifier.answers(paths):
        write(answer)
        all_answered &= answer.error is None
        try:
            if explanations:
                explanations.write(classifier, answer)
        except ImageError as error:  # it was changed meanwhile: the others are not concerned
            tell(str(error))
            all_answered = False
    return 0 if all_answered else 1


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    result = Parser(
        description="Say what photos show, and how likely that is.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="photos, folders (read with all below them), patterns in quotes, or - for a list of "
        "paths on standard input, one a line (or find -print0, or the first column of a table), "
        "patterns not among them",
    )
    add_bundle_arguments(result)
    result.add_argument(
        "--explain",
        type=Path,
        metavar="DIR",
        help="write a heat map for each photo into this folder, NAME.heat.png: in colour what "
        "speaks for its likeliest class",
    )
    form = result.add_mutually_exclusive_group()
    for name, text in (("json", "one JSON object a line"), ("csv", "comma-separated values")):
        form.add_argument(
            f"--{name}", dest="format", action="store_const", const=name, default="table", help=text
        )
    return result


def expand(given: Sequence[str]) -> Iterator[str]:
    """Yield the files that the arguments mean, in their order, as they were written.

    A folder gives every file below it, sorted by name, except hidden ones and those in folders of
    systems; a pattern that is no file itself gives its matches; anything else is passed on, so that
    its answer reports what is wrong.
    ``-`` gives the names listed on standard input, and what is below those that are folders.
    """
    for name in given:
        if name == "-":
            for listed in listed_names():
                yield from below(listed)
        elif not exists(name) and glob.has_magic(name):
            matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207  Path.glob knows no "/..."
            for match in matches or [name]:
                yield from below(match)
        else:
            yield from below(name)


def listed_names() -> list[str]:
    r"""Return the names on standard input: one a line, or ended by NUL (``find -print0``).

    They are never patterns. A line may be a row of a table; then its first cell is the name, and
    the table's header is passed over. A name that no file has is returned as it stands.
    """
    try:
        text = read_text(sys.stdin.buffer, "a list of names on standard input; received one")
    except OSError as error:
        raise UsageError(
            f"expected a list of names on standard input; received none ({error.strerror})"
        ) from error
    names, in_table = [], False
    for row in table_rows(text):
        name = next(filter(lexists, row_readings(row)), None)
        if name is not None:
            names.append(name)
        elif row.is_header():
            in_table = True
        else:
            names.append(row.cells[0] if in_table else row.line)
    return names


def below(name: str) -> Iterator[str]:
    """Yield a file itself; of a folder, the files below it and folders that cannot be listed.

    Links to folders are followed and folders of systems are not read, as ``train.py`` does.
    """
    if not isdir(name):
        yield name
        return
    tree = scan(name)
    for inner in sorted((*tree.root.below(), *tree.closed)):
        yield os.path.join(name, inner) if inner else name  # noqa: PTH118


NO_ANSWER = "-"
NUMBER_WIDTH = len("> 99.9 %")
WIDEST = 60  # a longer name moves its own row only


class Output:
    """Writes answers to stdout as they come: a table for people, JSON lines or CSV."""

    def __init__(self, form: str, classes: Sequence[str], paths: Sequence[str]) -> None:
        self.classes = classes
        self.width = min(WIDEST, max(len(for_terminal(path)) for path in paths))
        # The columns fit these answers; a longer one moves its own row only.
        likely = [f"probably {name}" for name in classes]
        usual = (*likely, in_words(NEITHER, classes, ()))
        self.words_width = min(WIDEST, max(len(for_terminal(words)) for words in usual))
        self.write = {"json": self._json, "csv": self._csv, "table": self._table}[form]
        self.csv = csv.writer(sys.stdout, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        self.headed = form != "csv"

    def __call__(self, answer: Prediction) -> None:
        """Write one answer, the first one of a CSV below the header."""
        if not self.headed:
            probabilities = [f"p_{name}" for name in self.classes]
            header = ["path", "label", *probabilities, "novelty", "error"]
            self.csv.writerow(map(self._cell, header))
            self.headed = True
        self.write(answer)

    def _json(self, answer: Prediction) -> None:
        print(for_json(asdict(answer)))

    def _csv(self, answer: Prediction) -> None:
        values = answer.probabilities or {}
        numbers = [*(values.get(name) for name in self.classes), answer.novelty]
        cells = ["" if value is None else float(f"{value:.6g}") for value in numbers]
        path, label, error = map(self._cell, (answer.path, answer.label or "", answer.error or ""))
        self.csv.writerow([path, label, *cells, error])

    def _cell(self, text: str) -> str:
        """Return text for a cell; a file gets names as they are, a terminal what is harmless."""
        return for_csv(for_terminal(text) if sys.stdout.isatty() else text)

    def _table(self, answer: Prediction) -> None:
        name = for_terminal(answer.path).ljust(self.width)
        words = for_terminal(answer.words or NO_ANSWER).ljust(self.words_width)
        print(f"{name}  {words}  {for_terminal(self._detail(answer))}")

    def _detail(self, answer: Prediction) -> str:
        """Return the number behind the words, or why there are none.

        Of more than five classes the four that come next follow.
        """
        if answer.likeliest is None:
            return answer.error or ""
        if answer.label == NEITHER:
            return f"novelty {answer.novelty:.2f}"
        number = percentage(answer.likeliest[1]).rjust(NUMBER_WIDTH)
        if answer.top is None or len(self.classes) <= TOP:
            return number
        others = (f"{each.label} {percentage(each.probability)}" for each in answer.top[1:])
        return f"{number}  {', '.join(others)}"


if __name__ == "__main__":
    sys.exit(run(main))
