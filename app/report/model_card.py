"""``MODEL_CARD.md``: what a model is, is for, and cannot do, for whoever it is passed on to.

    python -m app card runs/NAME                                      writes it again
    python -m app card docs/results/small.json --readme README.md     the part in the README

The chapters are those of Mitchell et al. 2019, "Model Cards for Model Reporting"; the header is the
one that Hugging Face reads. Every number is the run's own. What the user has named (the run, its
classes, the folder of photos) is escaped, and no path of the machine is told.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from app.core.atomic_files import open_whole
from app.core.errors import BundleError, UsageError
from app.core.printable import printable
from app.core.run_folder import Run
from app.evaluation.decision import OOD_THRESHOLD
from app.evaluation.metrics import wilson_interval
from app.report.html import duration, interval, percent, shown
from app.report.results import Results, read_results

BEGIN = "<!-- model card: made by python -m app card {source} --readme README.md -->"
END = "<!-- end of the model card -->"
CC_BY = "https://creativecommons.org/licenses/by/4.0/"
ATTRIBUTION = (
    "The ImageNet weights that training began with are VGG16 and VGG19 by Karen Simonyan and "
    "Andrew Zisserman, Visual Geometry Group, University of Oxford, under "
    f"[CC BY 4.0]({CC_BY}), converted to Keras by François Chollet. They were changed: what stands "
    "above the convolutions is new{opened}. Whoever passes the model on passes this attribution on."
)
CODE = "The code that trained it and runs it is under the Apache License 2.0."
PHOTOS = (
    "The photos have their owners' terms. Whether they allow a model made from them to be used or "
    "passed on is for whoever trained it to know; this card does not."
)


def write_model_card(run: Run) -> Path:
    """Write ``MODEL_CARD.md`` into the folder of a finished run and return its path.

    Raises:
        UsageError: when there is no such folder.
        BundleError: when the run is unfinished or damaged.
    """
    results = read_results(run)
    try:
        text = model_card(results)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise BundleError(
            f"expected readable numbers in {run.folder}; received others "
            f"({type(error).__name__}: {error}); train again with `python train.py --data DIR`"
        ) from error
    with open_whole(run.model_card) as file:
        file.write(text)
    return run.model_card


def model_card(results: Results) -> str:
    """Return the card of a run as Markdown."""
    metrics, config = results.metrics, results.config
    chapters = {
        "Model details": _details(metrics, config),
        "Intended use": _sentence(_intended(metrics)),
        "Factors and limits": _sentence(_limits(metrics)),
        "Training data": _training_data(results),
        "Evaluation data": _evaluation_data(metrics),
        "Metrics and results": _results(metrics),
        "Ethical considerations": _ethics(metrics),
        "How to use": USE,
        "How it was made": _made(results),
        "Licence and attribution": _licence(metrics, config),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in chapters.items())
    lead = f"Tells which class a photo shows: {_names(metrics['classes'])}. {_verdict(metrics)}"
    return f"{header(results)}\n# Model card: {plain(results.name)}\n\n{lead}\n\n{body}\n"


def readme_block(metrics: Mapping[str, Any], source: str) -> str:
    """Return the README's part, markers included, of a run's ``metrics.json``.

    Args:
        metrics: its contents.
        source: its path, as the README's readers see it.
    """
    return "\n".join(
        [
            BEGIN.format(source=quote(source)),
            f"The model of [{plain(source)}]({quote(source)}): {_verdict(metrics)}",
            "",
            per_class(metrics),
            "",
            f"- **Data:** {_photos(metrics)}.",
            f"- **Intended use:** {_sentence(_intended(metrics))}",
            f"- **Limits:** {_sentence(_limits(metrics))}",
            f"- **Calibration, neither, unsure:** {_sentence(_told(metrics))}",
            f"- **Made with:** {_versions(metrics)}, on {plain(metrics['device'])}.",
            "- **Licence and attribution:** see [below](#licence).",
            END,
        ]
    )


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


def header(results: Results) -> str:
    """Return the metadata that Hugging Face reads, as YAML: text is quoted as in JSON."""
    test = results.metrics["test"]
    backbone = str(results.config["backbone"])
    figures = [("accuracy", "Accuracy", "accuracy"), ("log_loss", "Log-loss", "log_loss")]
    lines = [
        "---",
        "license: other",
        "license_name: see-licence-and-attribution",
        'license_link: "#licence-and-attribution"',
        "library_name: keras",
        "pipeline_tag: image-classification",
        "tags:",
        *(f"- {tag}" for tag in (backbone, "onnx", "transfer-learning")),
        "model-index:",
        f"- name: {_quoted(results.name)}",
        "  results:",
        "  - task:",
        "      type: image-classification",
        "    dataset:",
        "      type: imagefolder",
        f"      name: {_quoted(_data_name(results.config))}",
        "      split: test",
        "    metrics:",
    ]
    for kind, title, key in figures:
        lines += [f"    - type: {kind}", f"      name: {title}", f"      value: {test[key]:.6g}"]
    return "\n".join([*lines, "---", ""])


def per_class(metrics: Mapping[str, Any]) -> str:
    """Return a table of each class's recall and precision on the test photos."""
    confusion, classes = metrics["test"]["confusion"], metrics["classes"]
    rows = []
    for i, label in enumerate(classes):
        row, n, right = confusion[i], sum(confusion[i]), confusion[i][i]
        answered = sum(other[i] for other in confusion)
        wrong = [0 if j == i else count for j, count in enumerate(row)]
        most = max(wrong)
        taken = f"{plain(classes[wrong.index(most)])}, {most:,}" if most else "–"
        recall = f"{right / n:.4f} ({interval(wilson_interval(right, n))})" if n else "–"
        precision = f"{right / answered:.4f}" if answered else "–"
        rows.append([plain(label), f"{n:,}", recall, precision, taken])
    head = ["class", "test photos", "recall (95 % interval)", "precision", "most often taken for"]
    return _table(head, rows)


def plain(text: object) -> str:
    r"""Return text that Markdown shows as it is: one line, what has a meaning there escaped.

    ``<b>`` becomes ``\<b\>``, and a line break, which would begin a new paragraph, ``\\n``.
    """
    return re.sub(r"([\\`*_\[\]<>#|~&$@]|:(?=//))", r"\\\1", printable(shown(text)))


def _details(metrics: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    size, stages = config["image_size"], metrics["stages"]
    mirror = " and its mirror image" if config.get("mirror") else ""
    start = "random weights" if config["weights"] == "none" else "its ImageNet weights"
    trained = ", then ".join(
        f"{plain(stage['name'])} ({stage['trainable_parameters']:,} numbers, "
        f"{stage['epochs']} {'strengths tried' if stage['name'] == 'head' else 'epochs'})"
        for stage in stages
    )
    return "\n".join(
        [
            f"- **Kind:** classifier of whole photos, {len(metrics['classes'])} classes: "
            f"{_names(metrics['classes'])}.",
            f"- **Network:** {plain(str(config['backbone']).upper())} (Simonyan and Zisserman "
            f"2014), from {start}, with softmax regression on second-order features of its last "
            "block.",
            f"- **Trained:** {trained}.",
            f"- **Input:** a photo{mirror}, resized to {size} × {size} pixels, RGB, 0 to 255; "
            "preprocessing is inside the model.",
            "- **Output:** a calibrated probability of each class, and a novelty from 0 to 1; "
            f"above {OOD_THRESHOLD} of it the answer is neither; "
            f"{_unsure(metrics['min_confidence'])}.",
            f"- **Finished:** {plain(metrics['finished'])}.",
            "- **Files:** `bundle/model.onnx` (ONNX), `bundle/classifier.keras` (Keras 3) and "
            "`bundle/bundle.json`, which names the classes; all three belong together.",
            *_int8(metrics.get("int8")),
        ]
    )


def _int8(told: Mapping[str, Any] | None) -> list[str]:
    """Return what is said of the model in int8; of older runs nothing is."""
    if told is None:
        return []
    if told["why_not"]:
        return [f"- **In int8:** there is none; {plain(told['why_not'])}."]
    return [
        "- **In int8:** `bundle/model.int8.onnx`, the same model for processors with instructions "
        f"for it. What it costs on {told['photos']:,} validation photos: accuracy "
        f"{-100 * told['accuracy_lost']:+z.2f} points, calibration error "
        f"{told['calibration_lost']:+z.4f}, answered otherwise "
        f"{percent(told['labels_changed'], 2)}, and {percent(told['refusals_changed'], 2)} more or "
        "fewer neither. The results below are what training computed, its frozen layers in int8 as "
        "well."
    ]


def _unsure(min_confidence: float) -> str:
    """Return when the model is unsure: above 1 it always is."""
    if min_confidence > 1:
        return "every other answer is unsure"
    if min_confidence == 0:
        return "no answer is unsure, unless a least confidence is given"
    return f"it is unsure where no class reaches {min_confidence:.4g}"


def _intended(metrics: Mapping[str, Any]) -> str:
    return (
        f"to say which of these classes a photo shows ({_names(metrics['classes'])}), where a "
        "mistake costs little or a person looks at the doubtful answers. Not for decisions about "
        "people, nor where a wrong answer harms someone, nor to find or count what a photo shows."
    )


def _limits(metrics: Mapping[str, Any]) -> str:
    return (
        "each photo gets one answer, so one that shows several classes gets one of them. Photos of "
        "another kind than the training photos (another camera, place or light, drawings, kinds of "
        "a class that were not among them) may be answered worse than the figures here say. Things "
        "of no class are told by their novelty alone; how many of them are refused was not "
        "measured in this run. With "
        f"{metrics['test']['n']:,} test photos the accuracy is known no better than its interval; "
        "wrong labels among them count as mistakes."
    )


def _training_data(results: Results) -> str:
    metrics = results.metrics
    lines = [f"From the folder {plain(_data_name(results.config))}: {_photos(metrics)}.", ""]
    splits, counts = list(metrics["photos"]), results.counts()
    lines.append(
        _table(
            ["class", *splits],
            [
                [plain(label), *(f"{counts[split, label]:,}" for split in splits)]
                for label in results.classes
            ],
        )
    )
    skipped = len(results.skipped())
    doubtful, strange = (len(results.findings_of(kind)) for kind in ("label", "stranger"))
    lines += [
        "",
        f"Files not used: {skipped:,} (`manifest.csv` has the reasons). Photos whose label may be "
        f"wrong: {doubtful:,}, unlike all others: {strange:,} (`audit.csv`); they were used as "
        "they are.",
    ]
    if weights := metrics.get("class_weights"):
        each = ", ".join(f"{plain(label)} {weight:.2f}" for label, weight in weights.items())
        lines.append(f"The classes are out of balance; a training photo counted: {each}.")
    return "\n".join(lines)


def _evaluation_data(metrics: Mapping[str, Any]) -> str:
    photos = metrics["photos"]
    return (
        f"{photos['test']:,} test photos of the same folder, scored once at the end. No test photo "
        "is a copy of a training photo, and none was found to be nearly the same as one of its own "
        "class. Choices (strength, epoch, temperature, thresholds) were made on "
        f"{photos['validation']:,} validation photos."
    )


def _scores(metrics: Mapping[str, Any]) -> str:
    head = ["photos", "n", "accuracy (95 % interval)", "log-loss", "Brier score"]
    head += ["calibration error", "area under ROC"]
    rows = []
    for split in ("validation", "test"):
        of = metrics[split]
        accuracy = f"{of['accuracy']:.4f} ({interval(of['accuracy_interval_95'])})"
        area = "–" if of["roc_auc"] is None else f"{of['roc_auc']:.4f}"
        figures = [f"{of[key]:.4f}" for key in ("log_loss", "brier", "ece")]
        rows.append([split, f"{of['n']:,}", accuracy, *figures, area])
    note = (
        "Intervals are Wilson's. Log-loss is in natural logarithms; the calibration error is over "
        "bins of equal width. Validation flatters, since choices were made on it."
    )
    return f"{_table(head, rows)}\n\n{note}"


def _results(metrics: Mapping[str, Any]) -> str:
    return "\n\n".join([_scores(metrics), per_class(metrics), _sentence(_told(metrics))])


def _told(metrics: Mapping[str, Any]) -> str:
    test, answers = metrics["test"], metrics["test"]["answers"]
    text = f"calibration error {test['ece']:.4f}"
    if (bias := test.get("ece_bias")) is not None:
        text += f" ({bias:.4f} is what perfectly calibrated answers would show by chance)"
    text += (
        f". Of the test photos {percent(answers['neither'])} were answered neither and "
        f"{percent(answers['unsure'])} unsure; of the {percent(answers['given'])} that got a "
    )
    wrong = answers["given_wrong"]
    return text + ("class none." if wrong is None else f"class {percent(wrong)} got a wrong one.")


def _ethics(metrics: Mapping[str, Any]) -> str:
    return (
        "Photos may show people, homes and places in the background; nothing was done to find or "
        "blur them. The model keeps descriptions of training photos to tell what is unlike them: "
        "photos cannot be seen in them, but whether one was among them might be found out. What "
        f"stands for each class ({_names(metrics['classes'])}) was chosen by whoever collected the "
        "photos; what is rare there may be answered worse."
    )


USE = """\
With the project's code, from its folder:

```console
$ python predict.py --bundle path/to/bundle photo.jpg
```

```python
from pathlib import Path
from app.inference.predictor import Classifier

for answer in Classifier(Path("path/to/bundle")).answers([Path("photo.jpg")]):
    print(answer.label, answer.probabilities, answer.novelty)
```

Without it: `bundle/model.onnx` in any ONNX runtime; `bundle/bundle.json` names the classes in the
order of the probabilities, and the size that photos are resized to."""


def _made(results: Results) -> str:
    command = shown(results.without_places().command())
    fence = "`" * (2 + max([1, *(len(ticks) for ticks in re.findall("`+", command))]))
    metrics = results.metrics
    precision = metrics["precision"]
    frozen = metrics.get("frozen_precision", precision)
    return (
        f"{fence}console\n$ {printable(command)}\n{fence}\n\n"
        f"On {plain(metrics['device'])}, trained layers in {plain(precision)}, frozen ones in "
        f"{plain(frozen)}, in {duration(metrics['seconds']['total'])}. "
        f"Versions: {_versions(metrics)}. All settings are in `config.json`, each epoch in "
        "`history.csv`, every answer in `predictions.csv`."
    )


def _licence(metrics: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    opened = [plain(stage["name"]) for stage in metrics["stages"] if stage["name"] != "head"]
    trained = f", and {', '.join(opened)} was trained further" if opened else ""
    random = "Training began with random weights; no other model's terms are carried on."
    weights = random if config["weights"] == "none" else ATTRIBUTION.format(opened=trained)
    return "\n\n".join([weights, CODE, PHOTOS])


def _verdict(metrics: Mapping[str, Any]) -> str:
    test = metrics["test"]
    return (
        f"Test accuracy {test['accuracy']:.4f} (95 % interval "
        f"{interval(test['accuracy_interval_95'])}) and log-loss {test['log_loss']:.4f} on "
        f"{test['n']:,} photos that had no part in training."
    )


def _photos(metrics: Mapping[str, Any]) -> str:
    photos = metrics["photos"]
    return (
        f"{photos['train']:,} photos to train on, {photos['validation']:,} to choose with, "
        f"{photos['test']:,} to test with, of {_names(metrics['classes'])}"
    )


def _versions(metrics: Mapping[str, Any]) -> str:
    each = [f"{plain(name)} {plain(version)}" for name, version in metrics["versions"].items()]
    return ", ".join([*each, f"backend {plain(metrics['backend'])}"])


def _names(classes: Sequence[str]) -> str:
    return ", ".join(map(plain, classes))


def _data_name(config: Mapping[str, Any]) -> str:
    """Return the last part of the path of the photos."""
    return Path(config["data"]).name or "photos"


def _quoted(text: str) -> str:
    return json.dumps(printable(shown(text)), ensure_ascii=False)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(argv: Sequence[str]) -> int:
    """Parse ``argv``, write the card or the README's part; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m app card", description="Write the model card of a finished run."
    )
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
        print(printable(str(write_model_card(Run(arguments.run)))))
        return 0
    source = Run(arguments.run).metrics if arguments.run.is_dir() else arguments.run
    try:
        metrics = json.loads(source.read_text(encoding="utf-8"))
        block = readme_block(metrics, source.name if source.is_absolute() else source.as_posix())
        text = arguments.readme.read_text(encoding="utf-8")
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise BundleError(
            f"expected the metrics.json of a run; received {source} ({type(error).__name__}: "
            f"{error}); give a run's folder, or docs/results/small.json"
        ) from error
    text = put_into(text, block)
    with open_whole(arguments.readme) as file:
        file.write(text)
    print(printable(str(arguments.readme)))
    return 0
