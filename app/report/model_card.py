"""``MODEL_CARD.md``: what a model is, is for, and cannot do, for whoever it is passed on to.

The chapters are those of Mitchell et al. 2019, "Model Cards for Model Reporting"; the header is the
one that Hugging Face reads. Every number is the run's own. What the user has named (the run, its
classes, the folder of photos) is escaped, and the card holds no path of the machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, TemplateError
from markupsafe import Markup

from app.core.atomic_files import open_whole
from app.core.cli import Parser
from app.core.errors import BundleError, UsageError
from app.core.records import read_record
from app.core.run_folder import Run
from app.core.run_metrics import Metrics
from app.core.sanitise import for_terminal, shown
from app.evaluation.decision import OOD_THRESHOLD
from app.evaluation.metrics import wilson_interval
from app.report.html import environment, interval, percent
from app.report.results import Results, read_results
from app.report.verdict import chosen_out_of_fold, corrections_said, scored, too_few, verdict

BEGIN = "<!-- model card: made by python -m app card {source} --readme docs/results.md -->"
END = "<!-- end of the model card -->"


def write_model_card(run: Run) -> Path:
    """Write ``MODEL_CARD.md`` into the folder of a finished run and return its path.

    Raises:
        UsageError: when there is no such folder.
        BundleError: when the run is unfinished or damaged.
    """
    results = read_results(run)
    try:
        text = model_card(results)
    except (ValueError, KeyError, TypeError, IndexError, TemplateError) as error:
        raise BundleError(
            f"expected readable numbers in {run.folder}; received others "
            f"({type(error).__name__}: {error}); train again with `python train.py --data DIR`"
        ) from error
    with open_whole(run.model_card) as file:
        file.write(text)
    return run.model_card


def model_card(results: Results) -> str:
    """Return the card of a run as Markdown."""
    return _filled(
        "card.md.j2",
        results.metrics,
        name=results.name,
        config=results.config,
        data=results.config.data.name or "photos",
        int8=results.metrics.int8,  # which older runs lack
        counts=results.counts(),
        skipped=len(results.skipped()),
        scored=scored(results.metrics),
        out_of_fold=chosen_out_of_fold(results.metrics),
        labels=len(results.findings_of("label")),
        outliers=len(results.findings_of("outlier")),
        command=results.without_places().command(),
        ood_threshold=OOD_THRESHOLD,
    )


def readme_block(metrics: Metrics, source: str) -> str:
    """Return the README's part, markers included, of a run's ``metrics.json``.

    Args:
        metrics: its contents.
        source: its path, as the README's readers see it.
    """
    values = {"source": source, "begin": BEGIN.format(source=quote(source)), "end": END}
    return _filled("readme.md.j2", metrics, **values).rstrip("\n")


def put_into(readme: str, block: str) -> str:
    """Return the text of a README with its part about the model replaced.

    Raises:
        UsageError: when the two markers are not there, each once and in their order.
    """
    begin, _, _ = BEGIN.partition(" made by")
    parts = re.split(f"{re.escape(begin)}.*?{re.escape(END)}", readme, flags=re.DOTALL)
    if len(parts) != 2 or any(marker in part for part in parts for marker in (begin, END)):
        raise UsageError(
            f"expected a line that begins with '{begin}' and below it one '{END}', each "
            "once; received a file without; add them where the card shall stand"
        )
    return block.join(parts)


def per_class(metrics: Metrics) -> list[dict[str, Any]]:
    """Return of each class how many test photos it has, and how they were answered."""
    confusion, classes = metrics.test.confusion, metrics.classes
    rows = []
    for i, row in enumerate(confusion):
        wrong = [*row[:i], 0, *row[i + 1 :]]
        rows.append(
            {
                "label": classes[i],
                "n": sum(row),
                "right": row[i],
                "interval": wilson_interval(row[i], sum(row)) if any(row) else None,
                "answered": sum(other[i] for other in confusion),
                "often": max(wrong),
                "taken_for": classes[wrong.index(max(wrong))],
            }
        )
    return rows


def plain(text: object) -> str:
    r"""Return text that Markdown shows as it is: one line, what has a meaning there escaped.

    ``<b>`` becomes ``\<b\>``, and a line break, which would begin a new paragraph, ``\\n``.
    """
    return re.sub(r"([\\`*_\[\]<>#|~&$@]|:(?=//))", r"\\\1", for_terminal(shown(text)))


@cache
def _markdown() -> Environment:
    """Return what fills in Markdown: every value is escaped for it, as HTML is elsewhere."""
    made = environment().overlay(
        autoescape=True,  # so that what is escaped already is known by its type
        finalize=lambda value: value if isinstance(value, Markup) else Markup(plain(value)),
    )
    made.filters = made.filters | {
        "fenced": _fenced,
        "interval": interval,
        "percent": percent,
        "signed": lambda value, digits: f"{value:+z.{digits}f}",
        "yaml": lambda text: Markup(json.dumps(for_terminal(shown(text)), ensure_ascii=False)),
    }
    return made


def _filled(template: str, metrics: Metrics, **values: Any) -> str:
    filled, few = _markdown().get_template(template), too_few(metrics.test)
    common = {
        "corrections": corrections_said(metrics),
        "per_class": per_class(metrics),
        "verdict": verdict(metrics),
        "too_few": few,
    }
    return filled.render(metrics=metrics, **common, **values)


def _fenced(command: str) -> Markup:
    """Return a block of code; the fence is longer than any row of backticks in it."""
    command = for_terminal(shown(command))
    fence = "`" * (2 + max([1, *(len(ticks) for ticks in re.findall("`+", command))]))
    return Markup(f"{fence}console\n$ {command}\n{fence}")


def main(argv: Sequence[str]) -> int:
    """Parse ``argv``, write the card or the README's part; return the exit code."""
    parser = Parser(description="Write the model card of a finished run.")
    parser.add_argument(
        "run",
        type=Path,
        metavar="RUN",
        help="the run's folder, runs/<name>; with --readme also a metrics.json",
    )
    parser.add_argument(
        "--readme",
        type=Path,
        metavar="FILE",
        help="put the short card between the markers of this file, instead of MODEL_CARD.md",
    )
    arguments = parser.parse_args(argv)
    if arguments.readme is None:
        print(for_terminal(str(write_model_card(Run(arguments.run)))))
        return 0
    source = Run(arguments.run).metrics if arguments.run.is_dir() else arguments.run
    metrics = read_record(
        source, Metrics, BundleError, "give a run's folder, or docs/results/small.json"
    )
    block = readme_block(metrics, source.name if source.is_absolute() else source.as_posix())
    try:
        text = put_into(arguments.readme.read_text(encoding="utf-8"), block)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"expected --readme to be a text in UTF-8; received {arguments.readme}, which is none"
        ) from error
    with open_whole(arguments.readme) as file:
        file.write(text)
    print(for_terminal(str(arguments.readme)))
    return 0
