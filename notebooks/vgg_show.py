"""What ``notebooks/2_vgg16_in_depth.py`` shows: tables, pictures and the sentences under them.

Each function takes what a cell has computed and shows it. Nothing is computed here that the lesson
is about.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import vgg_figures as figures
from IPython.display import display
from lesson import LessonPhotos, LessonWeights, Settings, Table, Words
from sklearn.metrics import log_loss
from vgg_figures import Floats, Ints
from vgg_paper import LayerCost, layer_costs, vgg

from app.data.decode import Pixels
from app.data.sets.synthetic_pets import draw_animal
from app.report.html import Number, Picture, duration, number, percent

STARTED = time.monotonic()
NONE = Number("–")
DENSE = ("fc1", "fc2", "predictions")
FIRST_AND_LAST = 16  # steps whose mean loss the table gives
STRIDE = 32  # pixels between two answers of the convolutional network
SIDE = 224  # pixels of the window of one answer
GUESSING = float(np.log(2))


def six_networks(networks: Mapping[str, Any], for_24_classes: Any) -> None:
    """Show the paper's Table 1, with what each network has of layers and weights."""
    rows = [
        [f"block {block}", *(", ".join(_block(model, block)) for model in networks.values())]
        for block in range(1, 6)
    ]
    learning = [str(sum(bool(x.weights) for x in model.layers)) for model in networks.values()]
    counts = [f"{model.count_params() / 1e6:.1f} M" for model in networks.values()]
    dense = ["dense", *["4096, 4096, 1000"] * len(networks)]
    rows += [dense, ["layers that learn", *learning], ["weights", *counts]]
    _show(
        Table(["", *networks], rows),
        Words(
            f"With the 1,000 classes of ImageNet, VGG16 has {networks['D'].count_params():,} "
            f"weights. With 24 classes it has {for_24_classes.count_params():,}: only the last "
            "layer shrinks, the others do not know how many classes there are."
        ),
    )


def costs(layers: Sequence[LayerCost]) -> None:
    """Show activations, weights and multiply-adds of each layer, and what memory they take."""
    total = _total(layers)
    rows = [
        [
            cost.name,
            "×".join(f"{side:,}" for side in cost.shape),
            Number(f"{cost.bytes_of_activations() / 1e6:.2f} MB") if cost.activations else NONE,
            _share(cost.activations, total["activations"]),
            number(cost.weights) if cost.weights else NONE,
            _share(cost.weights, total["weights"]),
            Number(f"{cost.multiply_adds / 1e6:,.0f} M") if cost.multiply_adds else NONE,
            _share(cost.multiply_adds, total["multiply_adds"]),
        ]
        for cost in layers
    ]
    activations = Number(f"{4 * total['activations'] / 1e6:.2f} MB")
    work = Number(f"{total['multiply_adds'] / 1e6:,.0f} M")
    rows.append(["together", "", activations, "", number(total["weights"]), "", work, ""])
    header = ["layer", "output", "activations", "share", "weights", "share", "multiply-adds"]
    has_relu = ("conv", "fc1", "fc2")
    with_relu = 4 * sum(
        cost.activations * (2 if any(name in cost.name for name in has_relu) else 1)
        for cost in layers
    )
    _show(
        Table([*header, "share"], rows),
        Words(
            f"The outputs of all layers, the photo among them, are {total['activations'] / 1e6:.1f}"
            f" million numbers, {4 * total['activations'] / 1e6:.0f} MB. Software that keeps the "
            f"numbers before and after each ReLU needs {with_relu / 1e6:.0f} MB."
        ),
    )


def shares(layers: Sequence[LayerCost]) -> None:
    """Show which parts of the network have the activations, the weights and the work."""
    parts = ["image", *(f"block{block}" for block in range(1, 6)), *DENSE]
    titles = {"Activations": "activations", "Weights": "weights", "Multiply-adds": "multiply_adds"}
    quantities = {
        title: [sum(getattr(c, what) for c in layers if c.name.startswith(p)) for p in parts]
        for title, what in titles.items()
    }
    each = {title: np.array(values) / sum(values) for title, values in quantities.items()}
    weights, memory, work = each["Weights"], each["Activations"], each["Multiply-adds"]
    _show(
        Picture(
            figures.shares(parts, quantities),
            alt="Shares of activations, weights and multiply-adds. "
            + "; ".join(
                f"{part}: " + ", ".join(percent(share[k]) for share in each.values())
                for k, part in enumerate(parts)
            )
            + ".",
        ),
        Words(
            f"The weights are in the dense layers: {percent(weights[-3:].sum())} of them, "
            f"{percent(weights[-3:-1].sum())} in the first two. The memory is in the first two "
            f"blocks: {percent(memory[1:3].sum())} of the activations. The work is in the "
            f"convolutions: {percent(1 - work[-3:].sum())} of the multiply-adds."
        ),
    )


def receptive_fields(gradients: Mapping[int, Floats]) -> None:
    """Show for each number of layers which pixels the middle output sees, and how large that is."""
    sees = {
        depth: "×".join(str(int(np.ptp(axis)) + 1) for axis in np.nonzero(gradient))
        for depth, gradient in gradients.items()
    }
    _show(
        Picture(
            figures.gradients(
                list(gradients.values()),
                [
                    f"1 layer: {seen}" if depth == 1 else f"{depth} layers: {seen}"
                    for depth, seen in sees.items()
                ],
            ),
            alt="Where the gradient of the middle output is not zero, by the number of "
            "convolutions. "
            + "; ".join(f"{depth} of 3×3: {seen} pixels" for depth, seen in sees.items())
            + ". It is strongest in the middle.",
        ),
        Words(
            "Receptive fields, measured: "
            + ", ".join(f"{seen} after {depth}" for depth, seen in sees.items())
            + ". The darker a pixel, the more it counts: more ways lead to the middle from near it "
            "than from the border."
        ),
    )


def saved(weights: Mapping[int, tuple[int, int]]) -> None:
    """Show the weights of three 3×3 convolutions and of one 7×7, by the number of channels."""
    header = ["channels", "three of 3×3", "÷ C²", "one of 7×7", "÷ C²", "saved"]
    rows = [
        [
            number(width),
            number(few),
            number(few / width**2),
            number(many),
            number(many / width**2),
            percent(1 - few / many, 0),
        ]
        for width, (few, many) in weights.items()
    ]
    _show(Table(header, rows))


def photos(chosen: LessonPhotos, weights: LessonWeights) -> None:
    """Say which photos are used, and why something is left out."""
    counts = {split: len(own) for split, own in chosen.splits.items()}
    first, second = chosen.classes
    _show(
        Words(
            f"Drawings of {first} and {second}: {counts['train']} to train on, "
            f"{counts['validation']} others to ask about, as many of each class. Drawings show how "
            "things work; how well they work, only photos show."
            if chosen.drawn
            else f"Photos of {first} and {second}: {counts['train']} to train on, "
            f"{counts['validation']} others to ask about, as many of each class."
        )
    )
    if not weights:
        _show(
            Words(
                "Left out below is what needs ImageNet's weights. Why there are none: "
                f"{weights.reason}"
            )
        )


def scratch_settings(settings: Settings, photos: int, batch: int) -> None:
    """Say what all networks from random weights have in common."""
    size = settings.scratch_size
    _show(
        Words(
            f"The settings, the same for all: {photos} photos of {size}×{size} pixels, "
            f"{settings.scratch_steps} steps of {batch} photos, Adam at a rate of 1e-4, pixels "
            "scaled to 0 … 1. So small a set can be learned by heart; a network that does not even "
            "do that learns nothing at all."
        )
    )


def spreads(layers: Sequence[LayerCost], found: Mapping[str, Sequence[float]]) -> None:
    """Show the spread of each layer's output before any training."""
    names = [
        cost.name.replace("block", "").replace("_conv", "-")
        for cost in layers
        if "_conv" in cost.name or cost.name in DENSE
    ]
    header = ["initialisation", "spread after layer 1", "after layer 15", "share left"]
    _show(
        Picture(
            figures.spread_by_layer(names, found),
            alt="Spread of the output by layer, on a logarithmic axis. "
            + "; ".join(f"{name}: from {s[0]:.2g} to {s[-1]:.2g}" for name, s in found.items())
            + ".",
        ),
        Table(
            header,
            [
                [name, Number(f"{s[0]:.2g}"), Number(f"{s[-2]:.2g}"), Number(f"{s[-2] / s[0]:.2g}")]
                for name, s in found.items()
            ],
        ),
    )


def losses(results: Mapping[str, tuple[Sequence[float], float]], asked: int) -> None:
    """Show the loss of each network step by step, and which of them still guess at the end."""
    curves = {name: values for name, (values, _) in results.items()}
    first = {name: float(np.mean(values[:FIRST_AND_LAST])) for name, values in curves.items()}
    last = {name: float(np.mean(values[-FIRST_AND_LAST:])) for name, values in curves.items()}
    stuck = [name for name in curves if abs(last[name] - GUESSING) < 0.01]
    moved = [name for name in curves if last[name] < GUESSING - 0.01]
    luck = 0.5 + 1.96 * 0.5 / asked**0.5
    steps = len(next(iter(curves.values())))
    _show(
        Picture(
            figures.loss_curves(curves, steps=8, guessing=GUESSING, top=1.4),
            alt=f"Training loss over {steps} steps; guessing costs {GUESSING:.3f}. "
            + "; ".join(
                f"{name}: {first[name]:.3f} in the first {FIRST_AND_LAST} steps, {last[name]:.3f} "
                "in the last"
                for name in curves
            )
            + ".",
        ),
        Table(
            ["network", f"loss of the first {FIRST_AND_LAST} steps", "of the last", "accuracy"],
            [
                [name, number(first[name], 3), number(last[name], 3), percent(accuracy)]
                for name, (_, accuracy) in results.items()
            ],
        ),
        Words(
            f"Still guessing after {steps} steps: {'; '.join(stuck) or 'none'}. Learning: "
            f"{'; '.join(moved) or 'none'}. ln 2 is {GUESSING:.4f}. The accuracy is that on "
            f"{asked} validation photos: up to {percent(luck, 0)} may be luck."
        ),
    )


def feature_planes(
    plane: Mapping[str, Floats], targets: Ints, classes: Sequence[str], votes: Mapping[str, float]
) -> None:
    """Show photos as points, and how often the five most similar ones name the class rightly."""
    said = "; ".join(f"{name.lower()} {percent(share)}" for name, share in votes.items())
    _show(
        Picture(
            figures.feature_maps(plane, targets, classes),
            alt=f"{len(targets)} validation photos as points of two planes. A photo's five nearest "
            f"others, in all dimensions, name its class rightly: {said}.",
        ),
        Words(
            "We give each photo the class of its 5 most similar photos. Right are, "
            f"{said}. The features tell the classes apart without having been trained for it; "
            "ImageNet's 1,000 classes hold many breeds of cats and dogs."
        ),
    )


def preparation(probabilities: Mapping[str, Floats], targets: Ints) -> None:
    """Show accuracy and log-loss of the same classifier by how pixels were prepared."""
    accuracy = {
        name: float((p.argmax(axis=1) == targets).mean()) for name, p in probabilities.items()
    }
    first, second = [
        f"{round((1 - share) * len(targets))} ({name})" for name, share in accuracy.items()
    ]
    _show(
        Table(
            ["pixels as", "validation accuracy", "log-loss"],
            [
                [name, percent(accuracy[name]), number(log_loss(targets, p), 4)]
                for name, p in probabilities.items()
            ],
        ),
        Picture(
            figures.accuracies(accuracy, len(targets)),
            alt="Validation accuracy of the same linear layer by preprocessing. "
            + "; ".join(f"{name}: {percent(share)}" for name, share in accuracy.items())
            + ".",
        ),
        Words(
            f"Wrong answers of {len(targets)}: {first} and {second}. The bars are 95 % intervals."
        ),
    )


def drawing(height: int, width: int) -> Pixels:
    """Return a drawn cat, uint8 ``(height, width, 3)``."""
    image = draw_animal("cat", np.random.default_rng(16)).image
    return np.asarray(image.resize((width, height)))


def same_numbers(answer: Floats, same: Floats, large: Floats) -> None:
    """Say how far the answers of the dense and of the convolutional network differ."""
    largest = float(np.abs(answer).max())
    difference = float(np.abs(same[:, 0, 0] - answer).max()) / largest
    _show(
        Words(
            f"Both networks give the same {answer.shape[1]} numbers: the largest is {largest:.3f}, "
            f"and none of them differ by more than {difference:.0e} of that, which is rounding. On "
            f"a larger picture the dense network cannot answer at all. The convolutional one gives "
            f"a map of {large.shape[1]}×{large.shape[2]} answers, one for each window of {SIDE} "
            f"pixels, {STRIDE} pixels apart."
        )
    )


def windows(picture: Pixels, for_24_classes: Any, places: Sequence[int]) -> None:
    """Show which window each answer of a larger picture belongs to, and what all of them cost."""
    rows, columns = places
    shape = picture.shape
    with keras.StatelessScope(initialize_variables=False):
        larger = vgg("D", top="convolutional", classes=24, input_shape=shape)
    keras.utils.clear_session()
    work, once = (
        sum(cost.multiply_adds for cost in layer_costs(model)) for model in (larger, for_24_classes)
    )
    _show(
        Picture(
            figures.windows(picture, SIDE, STRIDE),
            alt=f"A drawn cat, {shape[1]}×{shape[0]} pixels, with the first and the last of "
            f"{rows * columns} windows that the answers belong to; their centres form a grid of "
            f"{rows} rows and {columns} columns.",
        ),
        Words(
            f"Each dot is the centre of a window. The {rows * columns} answers together take "
            f"{work / once:.1f} times the multiply-adds of one, because windows share their "
            "convolutions. The paper averages all answers. An answer differs slightly from cutting "
            "out the window: there, the picture ends in zeros."
        ),
    )


def time_taken() -> None:
    """Say how long the notebook has taken so far."""
    clock, work, cores = time.monotonic() - STARTED, time.process_time(), os.cpu_count() or 1
    _show(
        Words(
            f"All of this took {duration(clock)} by the clock and {duration(work)} of the "
            f"processor's time, on {cores} cores that had much other work meanwhile."
            if clock > 1.5 * work / cores
            else f"All of this took {duration(clock)} by the clock and {duration(work)} of the "
            f"processor's time, on {cores} cores."
        )
    )


def _show(*parts: object) -> None:
    display(*parts)  # type: ignore[no-untyped-call]


def _total(layers: Sequence[LayerCost]) -> dict[str, int]:
    names = ("activations", "weights", "multiply_adds")
    return {name: sum(getattr(cost, name) for cost in layers) for name in names}


def _share(part: int, whole: int) -> Number:
    return percent(part / whole) if part else NONE


def _block(model: Any, block: int) -> list[str]:
    """Write the layers of a block as the paper does; its pooling is left out."""
    layers = [layer for layer in model.layers if layer.name.startswith(f"block{block}_")][:-1]
    return [
        f"conv{layer.kernel_size[0]}\N{NON-BREAKING HYPHEN}{layer.filters}"
        if hasattr(layer, "kernel")
        else "LRN"
        for layer in layers
    ]
