# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %%
import sys
from pathlib import Path

SHOWN = 20  # rows of a long table; the run's files hold the rest

project = Path.cwd() if Path("app").is_dir() else Path.cwd().parent
sys.path.insert(0, str(project))

import numpy as np
from IPython.display import display

from app import plots
from app.display import (
    Command,
    Number,
    Picture,
    Table,
    Verdict,
    Words,
    duration,
    number,
    percent,
    shown,
)
from app.results import chosen_run, read_results

results = read_results(chosen_run(project))
metrics, classes = results.metrics, [shown(name) for name in results.classes]
test, given = metrics["test"], results.predictions["test"]

# %% [markdown]
# # How good is this classifier?

# %%
low, high = test["accuracy_interval_95"]
right = sum(test["confusion"][k][k] for k in range(len(classes)))
some = 1000 if test["n"] >= 1000 else 100  # as fine as the test is
Verdict(
    number=percent(test["accuracy"]),
    detail=(
        f"right on the test photos (95 % interval {percent(low)} to {percent(high)}); "
        f"log-loss {test['log_loss']:.4f}"
    ),
    sentence=(
        f"It was asked about {test['n']:,} photos that it had never seen and named {right:,} of "
        f"them correctly. Of {some:,} new photos like these, expect it to get about "
        f"{some * (1 - test['accuracy']):.0f} wrong; the test leaves room for anything from "
        f"{some * (1 - high):.0f} to {some * (1 - low):.0f}."
    ),
)

# %%
Table(
    ["", "photos", "accuracy", "log-loss", "calibration error", "area under ROC"],
    [
        [
            split,
            number(metrics[split]["n"]),
            percent(metrics[split]["accuracy"], 2),
            number(metrics[split]["log_loss"], 4),
            number(metrics[split]["ece"], 4),
            Number("–") if (area := metrics[split]["roc_auc"]) is None else number(area, 4),
        ]
        for split in results.predictions
    ],
)

# %%
Words(
    "Choices were made on the validation photos, so their numbers flatter; the test photos were "
    "scored once, at the end. Log-loss punishes confident mistakes: 0 is perfect, and guessing "
    f"evenly between {len(classes)} classes costs {np.log(len(classes)):.2f}. Calibration error is "
    "the gap between how sure the answers are and how often they are right."
)

# %% [markdown]
# ## The photos

# %%
counts = {
    split: [results.count(split, label) for label in results.classes] for split in metrics["photos"]
}
Table(
    ["", *classes, "total"],
    [[split, *map(number, row), number(sum(row))] for split, row in counts.items()],
)

# %%
sizes = results.sizes()
middle_width, middle_height = np.median(sizes, axis=0)
Words(
    f"Half of the photos are wider than {middle_width:.0f} pixels and half are higher than "
    f"{middle_height:.0f}; the shortest side of all is {sizes.min()} pixels, the longest "
    f"{sizes.max()}. The network sees each of them at {results.config['image_size']} × "
    f"{results.config['image_size']}."
)

# %%
if weights := metrics.get("class_weights"):
    shares = ", ".join(f"{weight:.2f} of {name}" for name, weight in weights.items())
    display(
        Words(
            f"The classes are out of balance, so a training photo does not count 1, but {shares}."
        )
    )
skipped = results.skipped()
display(
    Words(
        f"Not used: {len(skipped):,} of {len(results.manifest):,} files"
        + (f". The first {SHOWN} are:" if len(skipped) > SHOWN else ":" if skipped else ".")
    )
)
if skipped:
    display(Table(["file", "why not"], [[row.name, row.reason] for row in skipped[:SHOWN]]))

# %%
labels = results.findings_of("label")
display(
    Words(
        f"Labels that may be wrong: {len(labels):,}. For each of these photos a model that was "
        "trained without it says another class than its label"
        + (f"; the {SHOWN} surest are:" if len(labels) > SHOWN else "; the surest first:")
        if labels
        else "No label is contradicted by models that were trained without its photo."
    )
)
if labels:
    display(Table(["file", "why"], [[row.name, row.reason] for row in labels[:SHOWN]]))

# %%
strangers = results.findings_of("stranger")
display(
    Words(
        "The photos that are the least like all others, the strangest first. Some may show none "
        "of the classes:"
    ),
    Table(["file", "why"], [[row.name, row.reason] for row in strangers[:SHOWN]]),
    Words(
        "Both lists are in audit.csv. Nothing was left out for being on them: cut out the lines of "
        "the photos that are wrong, and train again with --exclude and the file of these lines."
    ),
)

# %% [markdown]
# ## The stages of training

# %%
Table(
    ["stage", "trained numbers", "epochs", "kept", "time", "validation accuracy", "log-loss"],
    [
        [
            stage["name"],
            number(stage["trainable_parameters"]),
            number(stage["epochs"]),
            number(stage["kept_epoch"]),
            Number(duration(stage["seconds"])),
            percent(stage["validation"]["accuracy"], 2),
            number(stage["validation"]["log_loss"], 4),
        ]
        for stage in metrics["stages"]
    ],
)

# %% [markdown]
# A stage keeps the epoch with the best validation log-loss; *kept* 0 means that none was better
# than what the stage began with. The stage *head* is solved, not trained: each of its "epochs" is
# the solution for a weaker regularisation, from strong to weak.

# %%
first, last = results.history[0], results.history[-1]
display(
    Words(
        "Lower log-loss is better: where the validation line rises while the training line still "
        "falls, the network is learning the training photos by heart."
    ),
    Picture(
        plots.learning_curves(results.history),
        alt=(
            f"Learning curves over {len(results.history)} epochs: validation log-loss goes from "
            f"{first.validation_loss:.4f} to {last.validation_loss:.4f}, training log-loss from "
            f"{first.loss:.4f} to {last.loss:.4f}, validation accuracy from "
            f"{percent(first.validation_accuracy)} to {percent(last.validation_accuracy)}."
        ),
    ),
)

# %% [markdown]
# ## Where it is right and where it is wrong

# %%
confusion = np.array(test["confusion"])
wrong = confusion * (1 - np.eye(len(classes), dtype=int))
truth, answer = np.unravel_index(wrong.argmax(), wrong.shape)
commonest = (
    f"the most frequent mistake is {classes[truth]} taken for {classes[answer]}, "
    f"{wrong.max():,} of {confusion[truth].sum():,} photos."
    if wrong.any()
    else "there is no mistake."
)
cells = "; ".join(
    f"{classes[i]} answered as {classes[j]}: {count}" for (i, j), count in np.ndenumerate(confusion)
)
display(
    Words(f"Right answers stand on the diagonal; {commonest}"),
    Picture(plots.confusion(confusion, classes), alt=f"Confusion of the test photos. {cells}."),
)

# %%
area = "not defined" if test["roc_auc"] is None else f"{test['roc_auc']:.4f}"
display(
    Words(
        "The closer a curve comes to the upper left corner, the fewer photos of one class are "
        "lost for the sake of another, wherever the line between them is drawn."
    ),
    Picture(
        plots.roc(given.targets, given.probabilities, classes),
        alt=f"ROC curve of the test photos; the area under it is {area}.",
    ),
)

# %% [markdown]
# ## How far its confidence can be trusted

# %%
display(
    Words(
        "Points on the dashed line are answers that are right as often as they claim; below it "
        "the classifier is too sure of itself, above it too modest."
    ),
    Picture(
        plots.reliability(given.targets, given.probabilities),
        alt=(
            f"Reliability of {test['n']} test answers, with a histogram of their confidence: "
            f"confidence and accuracy differ by {test['ece']:.4f} on average."
        ),
    ),
)

# %%
said = test["answers"]
share_wrong = "–" if said["given_wrong"] is None else percent(said["given_wrong"], 2)
sure = metrics["min_confidence"]
unsure = (
    "never unsure, since of all answers to the validation photos at most 1 % were wrong"
    if sure == 0
    else f"unsure, where no class reaches {percent(sure)}"
    if sure <= 1
    else "else unsure of every one, since the surest answers to the validation photos were wrong"
)
display(
    Words(
        "What predict.py would say of the test photos: neither, where a photo is stranger than "
        f"98 % of the validation photos; {unsure}."
    ),
    Table(
        ["a class", "of it wrong", "unsure", "neither"],
        [
            [
                percent(said["given"], 2),
                share_wrong,
                percent(said["unsure"], 2),
                percent(said["neither"], 2),
            ]
        ],
    ),
    Words(
        f"The Brier score is {test['brier']:.4f}. Perfectly calibrated answers would show a "
        f"calibration error of {test['ece_bias']:.4f} on so many photos, by chance alone."
    ),
)

# %% [markdown]
# ## The most confident mistakes

# %%
mistakes = results.mistakes("test")
if mistakes:
    display(
        Words(
            f"Wrong answers: {len(mistakes):,} of {test['n']:,}, the surest first"
            + (f"; {SHOWN} are shown." if len(mistakes) > SHOWN else ".")
            + " Each is worth a look: its label may be wrong, or it may show more than one class."
        ),
        Table(
            ["file", "truth", "answer", "confidence"],
            [[m.name, m.truth, m.answer, percent(m.confidence)] for m in mistakes[:SHOWN]],
        ),
    )
else:
    display(Words("There is no wrong answer among the test photos."))

# %% [markdown]
# ## Where the time went

# %%
seconds = metrics["seconds"]
phases = {name: value for name, value in seconds.items() if name != "total"}
longest = max(phases, key=phases.__getitem__)
display(
    Words(
        f"The whole run took {duration(seconds['total'])} on {metrics['device']}; its "
        f"longest part was {longest}."
    ),
    Picture(
        plots.time_by_phase(seconds),
        alt="Time by phase. "
        + "; ".join(f"{name}: {duration(value)}" for name, value in seconds.items())
        + ".",
    ),
)

# %% [markdown]
# ## How to run it again

# %%
Command(results.command())

# %%
facts = {
    "run": results.name,
    "finished": metrics["finished"],
    "device": metrics["device"],
    "backend": f"Keras on {metrics['backend']}, {metrics['precision']}",
    "frozen activations": f"{metrics['cache']}, {metrics['frozen_precision']}",
    "temperature": f"{metrics['temperature']:.4f}",
    **metrics["versions"],
}
Table(["what", "value"], list(facts.items()))
