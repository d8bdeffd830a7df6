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
from app.inference.wording import SURELY
from app.report import figures as plots
from app.report.first_screen import advice, of_so_many, refused, waffle, wall
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
answered = album.answered
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
mistakes = [
    (classes[i], classes[j], often, confusion[i].sum())
    for i, j, often in plots.confused_pairs(confusion)
]
say = Parts(  # the words are in app/report/templates/report.html.j2
    "report.html.j2",
    album=album,
    classes=classes,
    metrics=metrics,
    ood_threshold=OOD_THRESHOLD,
    out_of_fold=chosen_out_of_fold(metrics),
    results=results,
)


def picture(figure, alt):
    return Picture(figure, alt.text, inline=bool(photos))


# %% [markdown]
# # How good is this classifier?

# %%
display(
    say.first_screen(
        waffle(metrics.test.counts),
        wall(answered, album.outcomes) if answered is not None else [],
        verdict(metrics)[1:] if few else [],
        few,
        of_so_many(metrics.test.counts, 1000 if metrics.test.n >= 1000 else 100),
        wilson_interval(metrics.test.counts.wrong, metrics.test.n),
        advice(metrics.test),
        mistakes,
    )
)

# %% [markdown]
# ## Mistakes

# %%
if answered is None:
    display(say.no_answers())
else:
    wrong = answered.mistakes()
    display(
        say.found_mistakes(),
        say.mistakes(len(wrong), wrong[:PICTURES]) if wrong else say.no_mistakes(),
    )

# %% [markdown]
# ## Doubtful answers

# %%
if answered is None:
    display(say.no_answers())
else:
    doubtful = answered.least_certain()[:PICTURES]
    display(say.found_doubt(doubtful), say.least_certain(doubtful))

# %% [markdown]
# ## Which classes are confused

# %%
in_a_square = len(classes) <= plots.MOST_CELLS
diagonal = [(name, name, confusion[k, k], confusion[k].sum()) for k, name in enumerate(classes)]
cells = [*(diagonal if in_a_square else []), *mistakes[:SHOWN]]
display(
    say.found_confusion(mistakes),
    say.confusion(mistakes, in_a_square),
    picture(plots.confusion(confusion, classes), say.confusion_alt(cells)),
)
if plots.FULL_CELLS < len(classes) <= plots.MOST_CELLS and mistakes:
    display(say.confused(mistakes[:SHOWN]))

# %% [markdown]
# ## Neither

# %%
told = {split: share for split, share in beyond.items() if split == "validation" or not few}
novelty = {split: answers.novelty for split, answers in results.predictions.items()}
display(
    say.found_neither(list(metrics.neither.values())),
    say.novelty(beyond, REFUSED),
    picture(plots.novelty(novelty, OOD_THRESHOLD), say.novelty_alt(told)),
    say.none_of_the_classes(),
    say.refused((out & right).sum(), (out & ~right).sum()),
)
if answered is not None and not album.drawn:
    display(say.refused_photos(refused(answered, album.outcomes)[:PICTURES]))

# %% [markdown]
# ## Unsure

# %%
sure = metrics.min_confidence
display(
    say.found_unsure(),
    say.coverage(),
    picture(
        plots.coverage(test.confidence[~out], right[~out], len(right), sure),
        say.coverage_alt((~out).mean(), right[~out].mean()),
    )
    if not (few or out.all())
    else say.nothing_to_draw(few),
    say.unsure(beyond, MAX_WRONG),
)

# %% [markdown]
# ## Photos worth checking

# %%
listed = {kind: len(results.findings_of(kind)) for kind in ("label", "outlier")}
display(say.found_label_issues(listed["label"]), say.label_issues(listed["label"], EXCHANGED))

# %% [markdown]
# ## Photos unlike all others

# %%
display(say.found_outliers(listed["outlier"]), say.outliers(listed["outlier"]))

# %% [markdown]
# ## The photos

# %%
splits, counts = list(metrics.photos), results.counts()
rows = [[shown(name), *(counts[split, name] for split in splits)] for name in results.classes]
smallest, *_, largest = sorted(rows, key=lambda row: sum(row[1:]))
if len(rows) > SHOWN:
    rows.sort(key=lambda row: sum(row[1:]))
rows = [*rows[:SHOWN], ["all", *(sum(row[k] for row in rows) for k in range(1, len(splits) + 1))]]
rows = [[name, *map(number, each), number(sum(each))] for name, *each in rows]
display(
    say.found_photos(smallest[0], sum(smallest[1:]), largest[0], sum(largest[1:])),
    say.photos(rows, splits, SHOWN),
)

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
display(say.near_duplicates(groups, across, SHOWN))
display(say.listed(listed["label"], listed["outlier"]))

# %% [markdown]
# ## What training saw

# %%
opening = any(stage.opens for stage in results.config.stage_plan())
display(say.found_views(opening), say.views(opening))

# %% [markdown]
# ## What training brought

# %%
display(say.found_training(), say.stages())

# %%
solved = [stage.name for stage in results.config.stage_plan() if not stage.opens]
epochs = [row for row in results.history if row.stage not in solved]
if epochs:
    display(
        say.learning_curves(),
        picture(plots.learning_curves(epochs), say.learning_curves_alt(epochs)),
    )

# %%
display(say.network(read_blocks(run.bundle / ONNX_FILE)))

# %% [markdown]
# ## How to run it again

# %%
display(say.found_command(), say.command())

# %% [markdown]
# ## For specialists

# %% [markdown]
# ### All scores

# %%
display(say.scores(scored(metrics), verdict(metrics)), say.about_scores(np.log(len(classes))))

# %% [markdown]
# ### ROC curve

# %%
if few:
    display(say.too_few())
else:
    display(
        say.roc(plots.CURVES_SHOWN),
        picture(plots.roc(test.targets, test.probabilities, classes), say.roc_alt()),
    )

# %% [markdown]
# ### Precision and recall

# %%
if few:
    display(say.too_few())
else:
    rarest = int(confusion.sum(axis=1).argmin())
    areas = plots.precision_areas(test.targets, test.probabilities)
    display(
        say.precision_recall(
            classes[rarest], confusion[rarest].sum() / confusion.sum(), plots.CURVES_SHOWN
        ),
        picture(
            plots.precision_recall(test.targets, test.probabilities, classes),
            say.precision_recall_alt([(classes[k], area) for k, area in areas.items()]),
        ),
    )

# %% [markdown]
# ### Calibration

# %%
if few:
    display(say.too_few())
else:
    surely = test.confidence >= SURELY
    display(
        say.found_sure(surely.sum(), (surely & ~right).sum()),
        say.reliability(),
        picture(plots.reliability(test.targets, test.probabilities), say.reliability_alt()),
        say.brier(),
    )

# %% [markdown]
# ### How the head was chosen

# %%
trials = [row for row in results.history if row.stage in solved]
kept = metrics.stages[0].kept_epoch
display(
    say.strengths(len(trials), kept),
    picture(plots.strengths(trials, kept), say.strengths_alt(trials)),
)

# %% [markdown]
# ### Time

# %%
phases = {name: value for name, value in metrics.seconds.items() if name != "total"}
display(
    say.time(max(phases, key=phases.__getitem__)),
    picture(plots.time_by_phase(metrics.seconds), say.time_alt()),
)

# %% [markdown]
# ### Memory

# %%
if memory := metrics.memory:
    display(
        say.memory(max(memory.values())),
        picture(plots.memory_by_phase(memory), say.memory_alt(memory)),
    )
else:
    display(say.no_memory())

# %% [markdown]
# ### Versions

# %%
display(say.versions())
