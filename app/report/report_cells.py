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

from app.evaluation.calibration import MAX_WRONG
from app.evaluation.decision import OOD_THRESHOLD
from app.evaluation.metrics import wilson_interval
from app.evaluation.ood import REFUSED
from app.inference.bundle_format import ONNX_FILE
from app.report import figures as plots
from app.report.html import Parts, Picture, number, shown
from app.report.images import EXCHANGED, drawn_album, photo_album
from app.report.images import SHOWN as PICTURES
from app.report.results import chosen_photos, chosen_run, read_blocks, read_results
from app.report.verdict import chosen_out_of_fold, scored, too_few, verdict

run = chosen_run(project)
results = read_results(run)
photos = chosen_photos()  # where they lie, if they may be shown
if not photos:  # this is passed on then, and tells no place either
    results = results.without_places()
album = photo_album(results, run.bundle, photos) if photos else drawn_album(results, run.bundle)
metrics, classes = results.metrics, [shown(name) for name in results.classes]
confusion = np.array(metrics.test.confusion)
test = results.predictions["test"]
few = too_few(metrics.test)  # test photos: no share of them is told
right = test.answers == test.targets
out = test.novelty > OOD_THRESHOLD
beyond = {
    split: float((answers.novelty > OOD_THRESHOLD).mean())
    for split, answers in results.predictions.items()
}
say = Parts(  # the words are in app/report/templates/report.html.j2
    "report.html.j2",
    album=album,
    classes=classes,
    metrics=metrics,
    ood_threshold=OOD_THRESHOLD,
    out_of_fold=chosen_out_of_fold(metrics),
    results=results,
)

# %% [markdown]
# # How good is this classifier?

# %%
share_wrong = wilson_interval(metrics.test.counts.wrong, metrics.test.n)
display(say.verdict(verdict(metrics), few, share_wrong))

# %%
display(say.scores(scored(metrics)))

# %%
display(say.about_scores(np.log(len(classes))))

# %% [markdown]
# ## The photos

# %%
splits, counts = list(metrics.photos), results.counts()
rows = [[shown(name), *(counts[split, name] for split in splits)] for name in results.classes]
if len(rows) > SHOWN:
    rows.sort(key=lambda row: sum(row[1:]))
rows = [*rows[:SHOWN], ["all", *(sum(row[k] for row in rows) for k in range(1, len(splits) + 1))]]
rows = [[name, *map(number, each), number(sum(each))] for name, *each in rows]
display(say.photos(rows, splits, SHOWN))

# %%
sizes = results.sizes()
display(say.sizes(*np.median(sizes, axis=0), sizes.min(), sizes.max()))

# %%
if weights := metrics.class_weights:
    display(say.class_weights(list(weights.items()), SHOWN))
display(say.not_used(list(results.refusals().items()), SHOWN))

# %%
groups = results.near_duplicates()
across = [group for group in groups if len({row.label for row in group}) > 1]
listed = {kind: len(results.findings_of(kind)) for kind in ("label", "outlier")}
display(say.near_duplicates(groups, across, SHOWN))
display(say.listed(listed["label"], listed["outlier"]))

# %% [markdown]
# ## What training saw of them

# %%
display(say.views(any(stage.opens for stage in results.config.stage_plan())))

# %% [markdown]
# ## The network, and what each stage trained

# %%
display(say.network(read_blocks(run.bundle / ONNX_FILE)))

# %%
display(say.stages())

# %% [markdown]
# ## How it learned

# %%
history = results.history
display(
    say.learning_curves(),
    Picture(plots.learning_curves(history), say.learning_curves_alt(history[0], history[-1]).text),
)

# %% [markdown]
# ## Where it is right and where it is wrong

# %%
in_a_square = len(classes) <= plots.MOST_CELLS
mistakes = [
    (classes[i], classes[j], often, confusion[i].sum())
    for i, j, often in plots.confused_pairs(confusion)
]
diagonal = [(name, name, confusion[k, k], confusion[k].sum()) for k, name in enumerate(classes)]
cells = [*(diagonal if in_a_square else []), *mistakes[:SHOWN]]
display(
    say.confusion(mistakes, in_a_square),
    Picture(plots.confusion(confusion, classes), say.confusion_alt(cells).text),
)
if plots.FULL_CELLS < len(classes) <= plots.MOST_CELLS and mistakes:
    display(say.confused(mistakes[:SHOWN]))

# %%
if few:
    display(say.too_few())
else:
    display(
        say.roc(plots.CURVES_SHOWN),
        Picture(plots.roc(test.targets, test.probabilities, classes), say.roc_alt().text),
    )

# %%
if not few:
    rarest = int(confusion.sum(axis=1).argmin())
    areas = plots.precision_areas(test.targets, test.probabilities)
    display(
        say.precision_recall(
            classes[rarest], confusion[rarest].sum() / confusion.sum(), plots.CURVES_SHOWN
        ),
        Picture(
            plots.precision_recall(test.targets, test.probabilities, classes),
            say.precision_recall_alt([(classes[k], area) for k, area in areas.items()]).text,
        ),
    )

# %% [markdown]
# ## How far its confidence can be trusted

# %%
if few:
    display(say.too_few())
else:
    display(
        say.reliability(),
        Picture(plots.reliability(test.targets, test.probabilities), say.reliability_alt().text),
        say.brier(),
    )

# %% [markdown]
# ## What “unsure” buys

# %%
sure = metrics.min_confidence
display(
    say.coverage(),
    Picture(
        plots.coverage(test.confidence[~out], right[~out], len(right), sure),
        say.coverage_alt((~out).mean(), right[~out].mean()).text,
    )
    if not (few or out.all())
    else say.nothing_to_draw(few),
    say.unsure(beyond, MAX_WRONG),
)

# %% [markdown]
# ## The most confident mistakes

# %%
answered = album.answered
if answered is None:
    display(say.no_answers())
elif wrong := answered.mistakes():
    display(say.mistakes(len(wrong), wrong[:PICTURES]))
else:
    display(say.no_mistakes())

# %% [markdown]
# ## The least certain answers

# %%
if answered is None:
    display(say.no_answers())
else:
    display(say.least_certain(answered.least_certain()[:PICTURES]))

# %% [markdown]
# ## Photos worth checking

# %%
display(say.label_issues(listed["label"], EXCHANGED))

# %% [markdown]
# ## Photos unlike all others

# %%
display(say.outliers(listed["outlier"]))

# %% [markdown]
# ## Neither

# %%
told = {split: share for split, share in beyond.items() if split == "validation" or not few}
novelty = {split: answers.novelty for split, answers in results.predictions.items()}
display(
    say.novelty(beyond, REFUSED),
    Picture(
        plots.novelty(novelty, OOD_THRESHOLD),
        say.novelty_alt(told).text,
    ),
    say.refused((out & right).sum(), (out & ~right).sum()),
)

# %% [markdown]
# ## Time and memory

# %%
phases = {name: value for name, value in metrics.seconds.items() if name != "total"}
display(
    say.time(max(phases, key=phases.__getitem__)),
    Picture(plots.time_by_phase(metrics.seconds), say.time_alt().text),
)

# %%
if memory := metrics.memory:
    display(
        say.memory(max(memory.values())),
        Picture(plots.memory_by_phase(memory), say.memory_alt(memory).text),
    )
else:
    display(say.no_memory())

# %% [markdown]
# ## How to run it again

# %%
display(say.command())

# %%
display(say.versions())
