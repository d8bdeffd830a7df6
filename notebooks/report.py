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
from rich.filesize import decimal

from app.evaluation.calibration import MAX_WRONG
from app.evaluation.decision import IS_NEITHER, OOD_THRESHOLD, Thresholds
from app.inference.bundle_format import ONNX_FILE
from app.report import figures as plots
from app.report import galleries as panels
from app.report.html import (
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
from app.report.images import EXCHANGED, drawn_album, photo_album
from app.report.images import SHOWN as PICTURES
from app.report.network_table import read_blocks
from app.report.results import chosen_photos, chosen_run, read_results

run = chosen_run(project)
results = read_results(run)
photos = chosen_photos()  # where they lie, if they may be shown
if not photos:  # this is passed on then, and tells no place either
    results = results.without_places()
metrics, classes = results.metrics, [shown(name) for name in results.classes]
test, given = metrics["test"], results.predictions["test"]
thresholds = Thresholds(metrics["min_confidence"])
beyond = {
    split: float((answers.decided(thresholds) == IS_NEITHER).mean())
    for split, answers in results.predictions.items()
}
album = photo_album(results, run.bundle, photos) if photos else drawn_album(results, run.bundle)
instead = "Drawings stand here for the photos, which belong to others. " if album.drawn else ""
answered = ""
if album.drawn and album.answered is not None:
    strangers = int((album.answered.decided(thresholds) == IS_NEITHER).sum())
    answered = (
        f"This run's bundle has answered them. {strangers} of {len(album.answered.names)} are "
        "stranger than the line, so predict.py would say neither; shown is the likeliest class. "
    )

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
        f"{some * (1 - test['accuracy']):.0f} wrong; as far as this test can tell, on average "
        f"between {some * (1 - high):.0f} and {some * (1 - low):.0f} of {some:,}."
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
splits, counts = list(metrics["photos"]), results.counts()
rows = [
    [shown(name), *(counts[split, name] for split in splits), sum(counts[s, name] for s in splits)]
    for name in results.classes
]
if len(rows) > SHOWN:
    rows.sort(key=lambda row: row[-1])
every = ["all", *(sum(row[column] for row in rows) for column in range(1, len(splits) + 2))]
display(
    Words(
        f"Of {len(results.manifest):,} files {every[-1]:,} are used; look for classes that have "
        "few photos, since those are learned and tested the least well"
        + (
            f": of {len(classes)} classes the smallest {SHOWN} are listed."
            if len(classes) > SHOWN
            else "."
        )
    ),
    Table(
        ["", *splits, "all"],
        [[row[0], *map(number, row[1:])] for row in [*rows[:SHOWN], every]],
    ),
)

# %%
sizes = results.sizes()
middle_width, middle_height = np.median(sizes, axis=0)
Words(
    f"At least half of the photos are {middle_width:.0f} pixels wide or wider, and at least half "
    f"{middle_height:.0f} high or higher; the shortest side of all is {sizes.min()} pixels, the "
    f"longest {sizes.max()}. The network sees each of them at {results.config['image_size']} × "
    f"{results.config['image_size']}."
)

# %%
if weights := metrics.get("class_weights"):
    shares = [f"{weight:.2f} of {name}" for name, weight in weights.items()]
    more = f" and so on for {len(shares)} classes" if len(shares) > SHOWN else ""
    display(
        Words(
            "The classes are out of balance, so a training photo does not count 1, but "
            f"{', '.join(shares[:SHOWN])}{more}."
        )
    )
skipped, refusals = results.skipped(), results.refusals()
display(
    Words(
        f"Not used: {len(skipped):,} of {len(results.manifest):,} files"
        + (", for these reasons:" if skipped else ".")
    )
)
if skipped:
    display(
        Table(
            ["why not", "files"] if album.drawn else ["why not", "files", "for example"],
            [
                [
                    why,
                    number(len(rows)),
                    *([] if album.drawn else [f"{rows[0].name} ({rows[0].reason})"]),
                ]
                for why, rows in list(refusals.items())[:SHOWN]
            ],
        )
    )

# %%
groups = results.near_duplicates()
across = [group for group in groups if len({row.label for row in group}) > 1]
found = {kind: results.findings_of(kind) for kind in ("label", "stranger")}
display(
    Words(
        (
            f"Used although others show nearly the same picture: {sum(map(len, groups)):,} photos, "
            f"where {len(groups):,} would do; those that are alike share a split"
            if groups
            else "No two photos that are used show nearly the same picture"
        )
        + (
            f". Of these pictures {len(across):,} lie in several classes, so a label is wrong."
            if across
            else "."
        )
    )
)
if across and not album.drawn:
    display(
        Table(
            ["nearly the same picture, in several classes"],
            [[", ".join(row.name for row in group)] for group in across[:SHOWN]],
        )
    )
Words(
    f"Suspects: {len(found['label']):,} labels that may be wrong and {len(found['stranger']):,} "
    "photos unlike all others are listed in audit.csv"
    + ("" if album.drawn else ", and the first of them are shown further down")
    + ". None was left out for being on the list."
)

# %% [markdown]
# ## What training saw of them

# %%
views = results.random_views()
opening = any(stage["opens"] for stage in results.config["stages"])
trained_on = (
    "every epoch a fresh view of each photo"
    if views is None
    else "each photo itself, and no other view"
    if views == 0
    else "the photo itself and random view 1"
    if views == 1
    else f"the photo itself and its random views 1 to {views}"
)
display(
    Words(
        (
            "These are some training photos. "
            if views == 0
            else "Each row is a training photo and random views of it, squeezed as the network "
            "sees them: the animal should still be whole enough to be told in each. "
        )
        + (
            f"Stages that open a block learned from {trained_on}; the head learns from the photo "
            "itself. "
            if opening
            else "The head, which alone was trained, learned from each photo itself. "
        )
        + f"{instead}{panels.missing(album, album.samples)}"
    ),
    panels.views(album),
)

# %% [markdown]
# ## The network, and what each stage trained

# %%
stages, blocks = results.config["stages"], read_blocks(run.bundle / ONNX_FILE)
head_weights = metrics["stages"][0]["trainable_parameters"]
begun = "random weights" if results.config["weights"] == "none" else "what it learned on ImageNet"
rows = [
    [
        block.name,
        f"{block.convolutions} convolutions",
        Number(" × ".join(map(str, block.output))),
        number(block.weights),
        *("trained" if block.name in stage["opens"] else "frozen" for stage in stages),
    ]
    for block in blocks
]
rows.append(
    [
        "head",
        "softmax regression",
        Number(str(len(classes))),
        number(head_weights),
        *("frozen" if stage["opens"] else "solved" for stage in stages),
    ]
)
display(
    Words(
        f"A photo goes through {results.config['backbone'].upper()} from the top of this table to "
        f"its bottom. The blocks begin with {begun}; a stage trains only what is marked in its "
        "column and leaves the rest as it was."
        + ("" if blocks else " Of the blocks the run's bundle would tell, which cannot be read.")
    ),
    Table(
        ["", "layers", "gives", "weights", *(f"stage {stage['name']}" for stage in stages)], rows
    ),
)

# %%
display(
    Table(
        ["", "trained numbers", "epochs", "kept", "time", "validation accuracy", "log-loss"],
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
    ),
    Words(
        "A stage keeps the epoch with the best validation log-loss; kept 0 means that none was "
        "better than what the stage began with. The stage head is solved, not trained: each of its "
        "“epochs” is the solution for a weaker regularisation, from strong to weak."
    ),
)

# %% [markdown]
# ## How it learned

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
pairs = plots.confused_pairs(confusion)
few = len(classes) <= plots.MOST_CELLS
commonest = "there is no mistake."
if pairs:
    truth, answer, often = pairs[0]
    commonest = (
        f"the most frequent mistake is {classes[truth]} taken for {classes[answer]}, {often:,} of "
        f"{confusion[truth].sum():,} photos."
    )
cells = "; ".join(
    f"{classes[i]} answered as {classes[j]}: {count}"
    for i, j, count in [(k, k, confusion[k, k]) for k in range(len(classes) if few else 0)]
    + pairs[:SHOWN]
)
where = (
    "Right answers stand on the diagonal"
    if few
    else f"These pairs of the {len(classes)} classes are confused the most often"
)
display(
    Words(f"{where}; {commonest}"),
    Picture(plots.confusion(confusion, classes), alt=f"Confusion of the test photos. {cells}."),
)
if plots.FULL_CELLS < len(classes) <= plots.MOST_CELLS and pairs:
    display(
        Table(
            ["truth", "answered as", "photos", "of"],
            [
                [classes[i], classes[j], number(often), number(confusion[i].sum())]
                for i, j, often in pairs[:SHOWN]
            ],
        )
    )

# %%
area = "not defined" if test["roc_auc"] is None else f"{test['roc_auc']:.4f}"
few_curves = (
    f" Of {len(classes)} classes the worst {plots.CURVES_SHOWN} are drawn."
    if len(classes) > plots.CURVES_SHOWN
    else ""
)
display(
    Words(
        "The closer a curve comes to the upper left corner, the fewer photos of one class are "
        f"lost for the sake of another, wherever the line between them is drawn.{few_curves}"
    ),
    Picture(
        plots.roc(given.targets, given.probabilities, classes),
        alt=f"ROC curve of the test photos; the area under it is {area}.",
    ),
)

# %%
rarest = min(range(len(classes)), key=lambda k: confusion[k].sum())
chance = confusion[rarest].sum() / confusion.sum()
display(
    Words(
        "The longer a curve stays at the top on its way to the right, the more photos of a class "
        "are found before others are taken for it; naming photos of the rarest class, "
        f"{classes[rarest]}, by chance would be right in {percent(chance)}.{few_curves}"
    ),
    Picture(
        plots.precision_recall(given.targets, given.probabilities, classes),
        alt=(
            "Precision over recall of the test photos. "
            + "; ".join(
                f"{classes[k]}: average precision {area:.4f}"
                for k, area in plots.precision_areas(given.targets, given.probabilities).items()
            )
            + "."
        ),
    ),
)

# %% [markdown]
# ## How far its confidence can be trusted

# %%
display(
    Words(
        "Points on the dashed line are answers that are right as often as they claim; below it "
        "the classifier is too sure of itself, above it too modest. The bars beneath count the "
        "answers of each confidence: where there are few, a point says little."
    ),
    Picture(
        plots.reliability(given.targets, given.probabilities),
        alt=(
            f"Reliability of {test['n']} test answers, with a histogram of their confidence: "
            f"confidence and accuracy differ by {test['ece']:.4f} on average."
        ),
    ),
    Words(
        f"The Brier score is {test['brier']:.4f}."
        + (
            f" Perfectly calibrated answers would show a calibration error of {bias:.4f} on so "
            "many photos, by chance alone."
            if (bias := test.get("ece_bias")) is not None  # which older runs lack
            else ""
        )
    ),
)

# %% [markdown]
# ## What “unsure” buys

# %%
said = test["answers"]
share_wrong = Number("–") if said["given_wrong"] is None else percent(said["given_wrong"], 2)
sure = metrics["min_confidence"]
unsure = (
    f"never unsure, since of all answers to the validation photos at most {percent(MAX_WRONG, 0)} "
    "were wrong"
    if sure == 0
    else f"unsure, where no class reaches {percent(sure)}"
    if sure <= 1
    else "else unsure of every one, since the surest answers to the validation photos were wrong"
)
known = given.decided(thresholds) != IS_NEITHER
hits = given.answers == given.targets
display(
    Words(
        "Asking for fewer answers should give better ones: the line begins at the left with the "
        "surest answers alone and takes in less certain ones towards the right, where only photos "
        "that are answered neither are lacking"
        + ("; the diamond marks what this run does." if said["given"] else ".")
    ),
    Picture(
        plots.coverage(given.confidence[known], hits[known], len(hits), sure),
        alt=(
            f"Accuracy over the share of photos that get an answer: {percent(known.mean())} get "
            f"one if none is called unsure, and {percent(hits[known].mean(), 2)} of these answers "
            f"are right; this run answers {percent(said['given'])}, of which {share_wrong} wrong."
        ),
    )
    if known.any()
    else Words("Every test photo is answered neither, so there is nothing to draw."),
    Words(
        "What predict.py would say of the test photos: neither, where a photo is stranger than "
        f"{percent(1 - beyond['validation'])} of the validation photos; {unsure}."
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
)

# %% [markdown]
# ## The most confident mistakes

# %%
asked = album.answered
lit = (
    "What is lit in the picture beside it speaks for the answer: if that is not the animal, the "
    "answer has another reason. "
    if album.heat
    else ""
)
if asked is None:
    display(Words(f"{instead}{album.lacking}"))
elif mistakes := asked.mistakes():
    names = [asked.names[n] for n in mistakes[:PICTURES]]
    display(
        Words(
            f"Wrong answers: {len(mistakes):,} of {len(asked.names):,}, the surest first"
            + (f"; {PICTURES} are shown" if len(mistakes) > PICTURES else "")
            + ". Each is worth a look: its label may be wrong, or it may show more than one class. "
            f"{lit}{album.lacking} {instead}{answered}{panels.missing(album, names)}"
        ),
        panels.answers(album, mistakes[:PICTURES], classes, sure),
    )
else:
    display(
        Words(
            f"There is no wrong answer among {len(asked.names):,} "
            f"{'drawings' if album.drawn else 'test photos'}. {instead}{answered}"
        )
    )

# %% [markdown]
# ## The least certain answers

# %%
if asked is None:
    display(Words(f"{instead}{album.lacking}"))
else:
    doubtful = asked.least_certain()[:PICTURES]
    names = [asked.names[n] for n in doubtful]
    display(
        Words(
            "Here the classes are nearly as likely as each other: look for what these pictures "
            "have in common, and add training photos like them. "
            f"{lit}{album.lacking} {instead}{answered}{panels.missing(album, names)}"
        ),
        panels.answers(album, doubtful, classes, sure),
    )

# %% [markdown]
# ## Labels that may be wrong

# %%
suspects = album.labels
if album.drawn and asked is not None:
    words = (
        f"The labels of {EXCHANGED} drawings were exchanged on purpose, which is said of them; a "
        "list like this, of those whose label the answer contradicts, the surest first, should "
        "begin with them. "
    )
elif found["label"]:
    words = (
        f"For each of these photos a model that was trained without it says another class than its "
        f"label: {len(found['label']):,}, the surest first"
        + (f", of which {PICTURES} are shown." if len(found["label"]) > PICTURES else ".")
        + " If the label is wrong, cut its line out of audit.csv into a file, and train again with "
        "--exclude and that file."
    )
else:
    words = "No label is contradicted by models that were trained without its photo."
display(
    Words(
        f"{words}{panels.missing(album, [f.name for f in suspects])} {instead}"
        f"{album.lacking or answered if album.drawn else ''}"
    )
)
if suspects:
    display(panels.findings(album, suspects))
if album.drawn and found["label"]:
    display(Words(f"Of the run's own photos {len(found['label']):,} are in audit.csv."))

# %% [markdown]
# ## Photos unlike all others

# %%
display(
    Words(
        "The least like all others, the strangest first: some may show none of the classes, and "
        "are better left out, in the same way. "
        f"{panels.missing(album, [f.name for f in album.strangers])} {instead}"
        f"{album.lacking or answered if album.drawn else ''}"
    )
)
if album.strangers:
    display(panels.findings(album, album.strangers))
if album.drawn:
    display(Words(f"Of the run's own photos {len(found['stranger']):,} are in audit.csv."))

# %% [markdown]
# ## Neither

# %%
strange = given.decided(thresholds) == IS_NEITHER
display(
    Words(
        "Photos to the right of the dotted line are answered neither: the line lies where it "
        f"refuses {percent(beyond['validation'])} of the validation photos, so test should lose "
        "about as many, and the two outlines should look alike. A photo that shows none of the "
        "classes should fall to the right."
    ),
    Picture(
        plots.novelty(
            {split: a.novelty for split, a in results.predictions.items()}, OOD_THRESHOLD
        ),
        alt=(
            "Distribution of novelty in validation and test. Beyond the threshold of "
            f"{OOD_THRESHOLD}: "
            + "; ".join(f"{split}: {percent(share)}" for split, share in beyond.items())
            + "."
        ),
    ),
    Words(
        f"Of the {len(strange):,} test photos, {strange.sum():,} are answered neither although "
        f"each shows one of the classes; {(strange & hits).sum():,} of them would have been "
        f"answered rightly and {(strange & ~hits).sum():,} wrongly."
    ),
)

# %% [markdown]
# ## Time and memory

# %%
seconds = metrics["seconds"]
phases = {name: value for name, value in seconds.items() if name != "total"}
longest = max(phases, key=phases.__getitem__)
display(
    Words(
        f"The whole run took {duration(seconds['total'])} on {metrics['device']}; its "
        f"longest part was {longest}, where a faster machine or a smaller picture helps the most."
    ),
    Picture(
        plots.time_by_phase(seconds),
        alt="Time by phase. "
        + "; ".join(f"{name}: {duration(value)}" for name, value in seconds.items())
        + ".",
    ),
)

# %%
if memory := metrics.get("memory"):
    display(
        Words(
            f"It needed {decimal(max(memory.values()))} of memory at most. A bar shows the most "
            "that was in use up to the end of a phase, so bars never fall: the phase "
            "with the largest step up is the one that needs it. A GPU's own memory is not counted."
        ),
        Picture(
            plots.memory_by_phase(memory),
            alt="Memory by phase. "
            + "; ".join(f"up to the end of {name}: {decimal(n)}" for name, n in memory.items())
            + ".",
        ),
    )
else:
    display(Words("How much memory it needed was not measured."))

# %% [markdown]
# ## How to run it again

# %%
display(
    Words("This command trains the same again; what it was computed with is listed below it."),
    Command(results.command()),
)

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
Table(["", "value"], list(facts.items()))
