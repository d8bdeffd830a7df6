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

# %% [markdown]
# # VGG16, explained by running it
#
# VGG16 is the network of most cats-and-dogs tutorials, and the one that this project trains. Here
# its design is taken apart, and so is the failure that nearly everyone meets who trains it from
# nothing. The results are those of the cells, which anyone can run again in some minutes.
#
# The paper: Simonyan and Zisserman, *Very Deep Convolutional Networks for Large-Scale Image
# Recognition*, ICLR 2015, [arXiv:1409.1556](https://arxiv.org/abs/1409.1556).

# %%
import gc
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

started = time.monotonic()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no remarks on missing GPUs
project = Path.cwd() if Path("app").is_dir() else Path.cwd().parent
sys.path[:0] = [str(project), str(project / "notebooks")]

import keras
import numpy as np
import vgg_figures as figures
from IPython.display import display
from lesson import Table, Words, chosen_settings, lesson_photos, lesson_weights
from vgg_paper import CONFIGURATIONS, WINDOW, copy_dense_weights, layer_costs, vgg

from app.core.config import STAGES
from app.data.decode import load_image, resize
from app.data.sets.synthetic_pets import draw_animal
from app.features.batches import LabelledMaps, ViewBatches, targets_of
from app.network.classifier import MEAN_BGR, build_classifier, open_layers, prefix, suffix
from app.network.pretrained_weights import set_weights
from app.report.html import Number, Picture, duration, number, percent
from app.training.finetune import train_stage
from app.training.linear_probe import fit_linear_probe

logging.getLogger("tensorflow").setLevel("ERROR")  # no remarks on building several networks
settings = chosen_settings()

# %% [markdown]
# ## Six networks from one table
#
# The paper compares six networks. All have five blocks of convolutions, each block ending in a
# pooling that halves height and width, and then three dense layers. They differ only in what the
# blocks hold. D is VGG16: 13 convolutions and 3 dense layers are the 16 layers that learn. E is
# VGG19. As in the paper, conv3-64 is a 3×3 convolution with 64 filters; LRN is the local response
# normalisation of AlexNet, which turned out not to help.

# %%
# Only their shapes are wanted here, so no numbers are drawn: they would fill three gigabytes.
with keras.StatelessScope(initialize_variables=False):
    networks = {name: vgg(name, top="dense") for name in CONFIGURATIONS}
    for_24_classes = vgg("D", top="dense", classes=24)
    for_a_larger_picture = vgg("D", top="convolutional", classes=24, input_shape=(320, 416, 3))
keras.utils.clear_session()  # forgets the numbers that wait to be drawn


def written(layer):
    if not hasattr(layer, "kernel"):
        return "LRN"
    return f"conv{layer.kernel_size[0]}\N{NON-BREAKING HYPHEN}{layer.filters}"


def block_of(model, block):
    return [layer for layer in model.layers if layer.name.startswith(f"block{block}_")][:-1]


rows = [
    [f"block {block}", *(", ".join(map(written, block_of(m, block))) for m in networks.values())]
    for block in range(1, 6)
]
learning = [sum(bool(layer.weights) for layer in m.layers) for m in networks.values()]
counts = [m.count_params() for m in networks.values()]
Table(
    ["", *networks],
    [
        *rows,
        ["dense", *["4096, 4096, 1000"] * len(networks)],
        ["layers that learn", *learning],
        ["weights", *(f"{count / 1e6:.1f} M" for count in counts)],
    ],
)

# %%
Words(
    f"With the 1,000 classes of ImageNet, VGG16 has {networks['D'].count_params():,} weights. With "
    f"24 classes it has {for_24_classes.count_params():,}: only the last layer shrinks, the others "
    "do not know how many classes there are."
)

# %% [markdown]
# ## Layer by layer: where memory, weights and work are
#
# For one photo of 224×224 pixels. *Activations* are the numbers that a layer gives to the next, in
# float32, 4 bytes each. A multiply-add is one multiplication and one addition. A convolution uses
# each of its weights once at every place of the picture; a dense layer uses each weight once.

# %%
costs = layer_costs(networks["D"])
total = {
    what: sum(getattr(cost, what) for cost in costs)
    for what in ("activations", "weights", "multiply_adds")
}


NONE = Number("–")


def share(cost, what):
    part = getattr(cost, what) / total[what]
    return percent(part) if part else NONE


Table(
    ["layer", "output", "activations", "share", "weights", "share", "multiply-adds", "share"],
    [
        [
            cost.name,
            "×".join(f"{side:,}" for side in cost.shape),
            Number(f"{cost.bytes_of_activations() / 1e6:.2f} MB") if cost.activations else NONE,
            share(cost, "activations"),
            number(cost.weights) if cost.weights else NONE,
            share(cost, "weights"),
            Number(f"{cost.multiply_adds / 1e6:,.0f} M") if cost.multiply_adds else NONE,
            share(cost, "multiply_adds"),
        ]
        for cost in costs
    ]
    + [
        [
            "together",
            "",
            Number(f"{4 * total['activations'] / 1e6:.2f} MB"),
            "",
            number(total["weights"]),
            "",
            Number(f"{total['multiply_adds'] / 1e6:,.0f} M"),
            "",
        ]
    ],
)

# %%
parts = ["image", *(f"block{block}" for block in range(1, 6)), "fc1", "fc2", "predictions"]
quantities = {
    title: [sum(getattr(c, what) for c in costs if c.name.startswith(part)) for part in parts]
    for title, what in (
        ("Activations", "activations"),
        ("Weights", "weights"),
        ("Multiply-adds", "multiply_adds"),
    )
}
dense = sum(quantities["Weights"][-3:]) / total["weights"]
convolutions = 1 - sum(quantities["Multiply-adds"][-3:]) / total["multiply_adds"]
first_dense = sum(quantities["Weights"][-3:-1]) / total["weights"]
early = sum(quantities["Activations"][1:3]) / total["activations"]
display(
    Picture(
        figures.shares(parts, quantities),
        alt="Shares of activations, weights and multiply-adds. "
        + "; ".join(
            f"{part}: "
            + ", ".join(percent(quantities[q][k] / sum(quantities[q])) for q in quantities)
            for k, part in enumerate(parts)
        )
        + ".",
    ),
    Words(
        f"The weights are in the dense layers: {percent(dense)} of them, {percent(first_dense)} in "
        f"the first two. The memory is in the first two blocks: {percent(early)} of the "
        f"activations. The work is in the convolutions: {percent(convolutions)} of the "
        "multiply-adds."
    ),
)

# %%
with_relu = 4 * sum(
    cost.activations * (2 if "conv" in cost.name or cost.name in ("fc1", "fc2") else 1)
    for cost in costs
)
Words(
    f"The outputs of all layers, the photo among them, are {total['activations'] / 1e6:.1f} "
    f"million numbers, {4 * total['activations'] / 1e6:.0f} MB. Software that keeps the numbers "
    f"before and after each ReLU needs {with_relu / 1e6:.0f} MB."
)

# %% [markdown]
# Often one reads 93 MB, or 24 million numbers. That figure stands under a table of Stanford's
# course notes CS231n, but the lines of that table add up to what is found here, as [others have
# noticed](https://github.com/cs231n/cs231n.github.io/issues/88). Training takes about twice as much
# as the outputs, because the gradients of the activations have to be somewhere too.
#
# ## Why 3×3?
#
# Before VGG, networks began with large kernels: 11×11 in AlexNet. Two 3×3 convolutions on top of
# each other see as far as one of 5×5, and three as far as one of 7×7. That can be checked: how far
# an output sees is where its *gradient* with respect to the picture is not zero.
#
# Keras has no function for gradients that TensorFlow, PyTorch and JAX share. But training is the
# gradient at work: one step of gradient descent at rate 1 changes what is trained by minus its
# gradient. So here the picture is what is trained, and the network stays as it is.


# %%
class TrainedPicture(keras.layers.Layer):
    """A picture whose pixels are trained as weights are."""

    def __init__(self, side):
        super().__init__()
        self.pixels = self.add_weight(shape=(1, side, side, 1), initializer="ones")

    def call(self, nothing):
        return nothing + self.pixels


def gradient_of_the_centre(depth, side=13):
    """Return the gradient of the middle output of a stack of 3×3 convolutions, (side, side)."""
    picture = TrainedPicture(side)
    nothing = keras.Input((side, side, 1))
    x = picture(nothing)
    for _ in range(depth):
        # Positive weights: nothing cancels, and no ReLU is closed.
        positive = keras.initializers.RandomUniform(0.1, 1.0)
        convolution = keras.layers.Conv2D(
            1, 3, padding="same", activation="relu", kernel_initializer=positive
        )
        convolution.trainable = False
        x = convolution(x)
    x = keras.layers.Cropping2D(side // 2)(x)  # the middle alone is left
    model = keras.Model(nothing, x)
    model.compile(keras.optimizers.SGD(1.0), loss=lambda _, middle: middle, jit_compile=False)
    before = keras.ops.convert_to_numpy(picture.pixels).copy()
    model.train_on_batch(np.zeros((1, side, side, 1)), np.zeros((1, 1, 1, 1)))
    return (before - keras.ops.convert_to_numpy(picture.pixels))[0, :, :, 0]


keras.utils.set_random_seed(0)
depths = (1, 2, 3)
gradients = [gradient_of_the_centre(depth) for depth in depths]
sees = [[int(np.ptp(axis)) + 1 for axis in np.nonzero(gradient)] for gradient in gradients]
display(
    Picture(
        figures.gradients(
            gradients,
            [f"{n} layer{'s' * (n > 1)}: {h}×{w}" for n, (h, w) in zip(depths, sees, strict=True)],
        ),
        alt="Where the gradient of the middle output is not zero, by the number of convolutions. "
        + "; ".join(
            f"{depth} of 3×3: {h}×{w} pixels" for depth, (h, w) in zip(depths, sees, strict=True)
        )
        + ". It is strongest in the middle.",
    ),
    Words(
        "Receptive fields, measured: "
        + ", ".join(f"{h}×{w} after {depth}" for depth, (h, w) in zip(depths, sees, strict=True))
        + ". The darker a pixel, the more it counts: more ways lead to the middle from near it "
        "than from the border."
    ),
)

# %% [markdown]
# The stack sees as much and learns less. With C channels in and out and without biases, three 3×3
# convolutions have 3 · 9 · C² = 27 C² weights, and one 7×7 convolution has 49 C². It also has three
# ReLUs in place of one, so it can bend its answer three times.


# %%
def weights_of(kernel, depth, channels):
    x = image = keras.Input((16, 16, channels))
    for _ in range(depth):
        x = keras.layers.Conv2D(channels, kernel, use_bias=False)(x)
    return keras.Model(image, x).count_params()


widths = (64, 256, 512)
three, one = ([weights_of(*kind, width) for width in widths] for kind in ((3, 3), (7, 1)))
Table(
    ["channels", "three of 3×3", "÷ C²", "one of 7×7", "÷ C²", "saved"],
    [
        [
            number(width),
            number(few),
            number(few / width**2),
            number(many),
            number(many / width**2),
            percent(1 - few / many, 0),
        ]
        for width, few, many in zip(widths, three, one, strict=True)
    ],
)

# %% [markdown]
# ## Dense layers are convolutions
#
# `fc1` takes 7 × 7 × 512 numbers, each with its own weight. A 7×7 convolution on a 7×7 picture does
# just that: it has one place to stand. `fc2` and `predictions` are then 1×1 convolutions. Nothing
# is approximated, only the shape of the weights is read differently. Both networks below are VGG16
# at full size with the same random weights, and look at the same drawing.

# %%
keras.utils.set_random_seed(1)
rows, columns = for_a_larger_picture.input_shape[1:3]
drawing = np.asarray(draw_animal("cat", np.random.default_rng(16)).image.resize((columns, rows)))
x = (drawing[None, ..., ::-1] - np.array(MEAN_BGR)).astype("float32")
side = 32 * WINDOW  # 224
answering = {"classes": 24, "classifier_activation": None, "kernel_initializer": "he_normal"}
with_dense = vgg("D", top="dense", **answering)
answer = with_dense.predict(x[:, :side, :side], verbose=0)
fully_convolutional = vgg("D", top="convolutional", input_shape=(None, None, 3), **answering)
copy_dense_weights(with_dense, fully_convolutional)
del with_dense
same = fully_convolutional.predict(x[:, :side, :side], verbose=0)
large = fully_convolutional.predict(x, verbose=0)
del fully_convolutional
gc.collect()  # a network's parts know each other, and would stay
difference = np.abs(same[:, 0, 0] - answer).max() / np.abs(answer).max()
Words(
    f"On a picture of {side}×{side} pixels the dense network gives {answer.shape[1]} numbers, the "
    f"convolutional one a map of {same.shape[1]}×{same.shape[2]} places with {same.shape[3]} "
    f"numbers. The largest of the numbers is {np.abs(answer).max():.3f}, and no two of them differ "
    f"by more than {difference:.0e} of that: the same numbers, but for rounding. On "
    f"{rows}×{columns} pixels the dense network cannot answer at all. The convolutional one gives "
    f"a map of {large.shape[1]}×{large.shape[2]} answers, one for each window of {side} pixels, 32 "
    "pixels apart."
)

# %%
places = large.shape[1] * large.shape[2]
work, once = (
    sum(cost.multiply_adds for cost in layer_costs(model))
    for model in (for_a_larger_picture, for_24_classes)
)
work /= once
display(
    Picture(
        figures.windows(drawing, side, 32),
        alt=(
            f"A drawn cat, {columns}×{rows} pixels, with the first and the last of {places} "
            f"windows that the answers belong to; their centres form a grid of {large.shape[1]} "
            f"rows and {large.shape[2]} columns."
        ),
    ),
    Words(
        f"Each dot is the centre of a window. The {places} answers together take {work:.1f} times "
        "the multiply-adds of one, because windows share their convolutions. So the paper tests: "
        "it averages the map. An answer in the map is not exactly what the window alone would "
        "get: a window cut out ends in zeros where the map sees the rest of the picture."
    ),
)

# %% [markdown]
# ## The failure that everyone meets
#
# Take VGG16 with random weights, show it cats and dogs, and it answers "cat" with a probability of
# 0.5, after one epoch and after ten. Its loss stands at ln 2, the price of guessing between two.
# The networks below all have the real depth: 13 convolutions and 3 dense layers, in the paper's
# widths, without dropout. They differ only in how they begin, one of them in its normalisation, and
# the last in what of it is trained.

# %%
sketchbook = tempfile.TemporaryDirectory()  # for drawings, where there are no photos
photos = lesson_photos(project, settings, Path(sketchbook.name) / "drawn")
weights = lesson_weights()
counts = {split: len(chosen) for split, chosen in photos.splits.items()}
display(
    Words(
        ("Drawings of" if photos.drawn else "Photos of")
        + f" {' and '.join(photos.classes)}: {counts['train']} to train on, {counts['validation']} "
        "others to ask about, as many of each class."
        + (" Drawings show how things work; how well they work, only photos show." * photos.drawn)
    )
)
if isinstance(weights, str):
    display(
        Words(
            "Without ImageNet's weights, what needs them is left out. Why there are none: "
            f"{weights}"
        )
    )


# %%
def pixels_of(split, size, each=None):
    """Return the photos of a split, uint8 (n, size, size, 3), and their classes."""
    chosen = photos.splits[split]
    half = len(chosen) // 2
    chosen = chosen[: each or half] + chosen[half:][: each or half]
    return np.stack([load_image(photo.path, size) for photo in chosen]), targets_of(chosen)


def scaled(pixels):
    """Scale to 0 … 1, as most tutorials do."""
    return (pixels / 255).astype("float32")


def mean_subtracted(pixels):
    """Prepare as the ImageNet weights were trained: BGR, ImageNet's mean colour taken away."""
    return (pixels[..., ::-1] - np.array(MEAN_BGR)).astype("float32")


size, batch = settings.scratch_size, 16
seen, seen_targets = pixels_of("train", size, settings.scratch_train)
asked, asked_targets = pixels_of("validation", size)
Words(
    f"The settings, the same for all: {len(seen)} photos of {size}×{size} pixels, "
    f"{settings.scratch_steps} steps of {batch} photos, Adam at a rate of 1e-4, pixels scaled to 0 "
    "… 1. So small a set can be learned by heart; a network that does not even do that learns "
    "nothing at all."
)

# %% [markdown]
# ### The signal fades
#
# Before any training: how much do the outputs of each layer vary? With Keras's default, *Glorot
# uniform*, a ReLU layer as wide as the one before it passes on half of the signal's power, since
# the ReLU throws half of it away and the initialisation does not make up for that. Where the width
# doubles it is a third. With the paper's normal distribution of spread 0.01 less is left. The
# authors trained the shallow network A first and began the deep ones with its layers; later, they
# note, Glorot's numbers did as well, but that is with 1.3 million photos and 74 epochs. *He normal*
# (He et al. 2015) has the missing factor of 2. *Batch normalisation* (Ioffe and Szegedy 2015)
# brings what each convolution gives to its ReLU back to a spread of 1, whatever the weights.

# %%
KINDS = {
    "Glorot uniform, Keras's default": {},
    "normal, spread 0.01, the paper's": {
        "kernel_initializer": keras.initializers.RandomNormal(0.0, 0.01)
    },
    "He normal": {"kernel_initializer": "he_normal"},
    "Glorot and batch normalisation": {"batch_normalisation": True},
}
DENSE = ("fc1", "fc2", "predictions")


def network(**settings_of_kind):
    keras.utils.set_random_seed(0)
    return vgg(
        "D",
        top="dense",
        classes=2,
        classifier_activation=None,
        input_shape=(size, size, 3),
        **settings_of_kind,
    )


def spreads_of(model, inputs):
    """Return the standard deviation of what each layer gives to the next."""
    after_relu = [
        layer
        for layer in model.layers
        if layer.name.endswith("_relu")
        or layer.name in DENSE
        or ("_conv" in layer.name and getattr(layer, "activation", None) is keras.activations.relu)
    ]
    outputs = keras.Model(model.input, [layer.output for layer in after_relu])
    values = outputs(inputs, training=True)  # batch normalisation by this batch, as in training
    return [float(np.std(keras.ops.convert_to_numpy(value))) for value in values]


few = scaled(np.concatenate([seen[:batch], seen[-batch:]]))
spreads = {}
for name, kind in KINDS.items():
    spreads[name] = spreads_of(network(**kind), few)
    gc.collect()
layers = [
    cost.name.replace("block", "").replace("_conv", "-")
    for cost in costs
    if "_conv" in cost.name or cost.name in DENSE
]
display(
    Picture(
        figures.spread_by_layer(layers, spreads),
        alt="Spread of the output by layer, on a logarithmic axis. "
        + "; ".join(f"{name}: from {s[0]:.2g} to {s[-1]:.2g}" for name, s in spreads.items())
        + ".",
    ),
    Table(
        ["initialisation", "spread after layer 1", "after layer 15", "share left"],
        [
            [name, Number(f"{s[0]:.2g}"), Number(f"{s[-2]:.2g}"), Number(f"{s[-2] / s[0]:.2g}")]
            for name, s in spreads.items()
        ],
    ),
)

# %% [markdown]
# What reaches the last layer of a faded network is nearly the same for every photo: nearly nothing.
# Its answer is 0.5 for all, and what training could learn from, the difference between the photos,
# is too faint to find.
#
# ### What it does to training, and what helps
#
# The fifth network takes the other way out: its convolutions are not random but have learned from
# ImageNet, and are frozen; only its three dense layers train, from Glorot's random numbers. It gets
# its pixels as those weights were trained, mean-subtracted.


# %%
def trained(model, prepare):
    """Train a network; return the loss of each step and the accuracy on the validation photos."""
    model.compile(
        optimizer=keras.optimizers.Adam(1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    inputs, random, order, losses = prepare(seen), np.random.default_rng(0), [], []
    for _ in range(settings.scratch_steps):
        if len(order) < batch:
            order = list(random.permutation(len(inputs)))
        now, order = order[:batch], order[batch:]
        losses.append(float(model.train_on_batch(inputs[now], seen_targets[now])))
        model.reset_metrics()  # else the loss is the mean of all steps so far
    answers = model.predict(prepare(asked), batch_size=32, verbose=0).argmax(axis=1)
    return losses, float((answers == asked_targets).mean())


def pretrained():
    model = network()
    set_weights(model, weights)
    for layer in model.layers:
        layer.trainable = layer.name in DENSE
    return model


builders = {name: (lambda kind=kind: network(**kind), scaled) for name, kind in KINDS.items()}
if not isinstance(weights, str):
    builders["ImageNet's convolutions, frozen"] = (pretrained, mean_subtracted)
losses, accuracy = {}, {}
for name, (build, prepare) in builders.items():
    losses[name], accuracy[name] = trained(build(), prepare)
    gc.collect()

# %%
guessing, end = float(np.log(2)), 16
first = {name: float(np.mean(values[:end])) for name, values in losses.items()}
last = {name: float(np.mean(values[-end:])) for name, values in losses.items()}
display(
    Picture(
        figures.loss_curves(losses, steps=8, guessing=guessing, top=1.4),
        alt=f"Training loss over {settings.scratch_steps} steps; guessing costs {guessing:.3f}. "
        + "; ".join(
            f"{name}: {first[name]:.3f} in the first {end} steps, {last[name]:.3f} in the last"
            for name in losses
        )
        + ".",
    ),
    Table(
        ["network", f"loss of the first {end} steps", "of the last", "validation accuracy"],
        [
            [name, number(first[name], 3), number(last[name], 3), percent(accuracy[name])]
            for name in losses
        ],
    ),
)

# %%
stuck = [name for name in losses if abs(last[name] - guessing) < 0.01]
moved = [name for name in losses if last[name] < guessing - 0.01]
Words(
    f"ln 2 is {guessing:.4f}. At the end within 0.01 of it: {'; '.join(stuck) or 'none'}. Below "
    f"it: {'; '.join(moved) or 'none'}. With {counts['validation']} photos, an accuracy of 50 % is "
    f"guessing, and up to {percent(0.5 + 1.96 * 0.5 / counts['validation'] ** 0.5, 0)} may be luck."
)

# %% [markdown]
# A falling training loss says that the network learns *these* photos. That it names others rightly
# is another matter: from random weights that takes far more photos and steps than here. The
# ImageNet weights have them behind them, which is why this project, like the good tutorials, begins
# there.
#
# ## Transfer: what the frozen features know already
#
# Below, VGG16 with ImageNet's weights looks at the same photos, a little larger. Nothing is
# trained: its convolutions were never told which photo is of which class. The left picture shows
# the photos as points by their pixels, the right one by the network's features, each flattened to
# the two directions in which they differ most (principal components).

# %%
if isinstance(weights, str):
    display(Words(f"Left out, because there are no ImageNet weights: {weights}"))
else:
    large_size = settings.transfer_size
    pixels = {split: pixels_of(split, large_size)[0] for split in photos.splits}
    targets = {split: targets_of(chosen) for split, chosen in photos.splits.items()}
    keras.utils.set_random_seed(0)
    classifier = build_classifier(2, image_size=large_size)
    set_weights(classifier, weights)

    def frozen_maps():
        """Return block5's and block4's output for all photos, by split."""
        frozen = prefix(classifier, ["block5_pool", "block4_pool"])
        return {
            split: frozen.predict(images, batch_size=16, verbose=0)
            for split, images in pixels.items()
        }

    maps = frozen_maps()

# %%
if not isinstance(weights, str):
    from sklearn.decomposition import PCA
    from sklearn.model_selection import cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    tiny = np.stack([resize(image, 32) for image in pixels["validation"]])
    described = {
        "By their pixels": tiny.reshape(len(tiny), -1) / 255,
        "By block5's features": np.sqrt(maps["validation"][0].mean(axis=(1, 2))),
    }
    plane = {name: PCA(2, random_state=0).fit_transform(x) for name, x in described.items()}
    neighbour = {
        name: cross_val_score(KNeighborsClassifier(5), x, targets["validation"], cv=5).mean()
        for name, x in described.items()
    }
    say_neighbours = "; ".join(f"{name.lower()} {percent(a)}" for name, a in neighbour.items())
    display(
        Picture(
            figures.feature_maps(plane, targets["validation"], photos.classes),
            alt=(
                f"{counts['validation']} validation photos as points of two planes. A photo's five "
                f"nearest others, in all dimensions, name its class rightly: {say_neighbours}."
            ),
        ),
        Words(
            "How well are the classes apart? Let the five photos that are most alike vote on each "
            f"photo. The share of right votes, {say_neighbours}. The features tell cats from dogs "
            "without having been trained for it; ImageNet's 1,000 classes hold many breeds of "
            "both."
        ),
    )

# %% [markdown]
# On such features a linear head is enough. Stage *head* solves it, softmax regression on
# second-order features (`app/training/linear_probe.py`). Stage *block5* then opens the last three
# convolutions at a
# low rate (`app/training/finetune.py`). Both are the stages of `train.py`, here on few photos.

# %%
if not isinstance(weights, str):

    def solved_head(maps):
        """Solve the head on block5's outputs; return its scores."""
        labelled = {
            split: LabelledMaps(lambda numbers, m=m: iter([m[0][list(numbers)]]), targets[split])
            for split, m in maps.items()
        }
        head = fit_linear_probe(
            classifier, STAGES["head"], labelled["train"], labelled["validation"]
        )
        return head.result

    def batches(maps, stage, split):
        """Feed block4's output of a split to a stage."""
        places = {photo.content: k for k, photo in enumerate(photos.splits[split])}
        return ViewBatches(
            photos.splits[split],
            lambda views: maps[split][1][[places[view.photo.content] for view in views]],
            views=1,
            batch_size=stage.batch_size,
            seed=0,
            shuffle=split == "train",
        )

    stage = STAGES["block5"]
    results = [solved_head(maps)]
    opened = open_layers(classifier, stage)
    part = suffix(classifier, stage.cut)
    fed = (batches(maps, stage, split) for split in ("train", "validation"))
    results.append(train_stage(part, stage, *fed))
    display(
        Table(
            ["stage", "trained numbers", "validation accuracy", "log-loss"],
            [
                [
                    result.name,
                    number(result.trainable_parameters),
                    percent(result.validation.accuracy),
                    number(result.validation.log_loss, 4),
                ]
                for result in results
            ],
        ),
        Words(
            f"The head alone is right about {percent(results[0].validation.accuracy)} of the "
            "photos that it has not seen, and after block5 it is "
            f"{percent(results[1].validation.accuracy)}. "
            + (
                f"Block5 helped after epoch {results[1].kept_epoch} and that is what was kept. "
                if results[1].kept_epoch
                else "Block5 lowered the validation loss in no epoch, so nothing of it was kept. "
            )
            + f"One photo is {percent(1 / counts['validation'], 2)}. The README has the figures of "
            "whole runs."
        ),
    )

# %% [markdown]
# ## The same photos, prepared wrongly
#
# The ImageNet weights expect what they were trained on: blue, green, red, and the mean colour taken
# away, so that numbers run from about −124 to 151. Many tutorials divide by 255 instead. Nothing
# breaks, no warning comes. What does it cost? Here preprocessing is the first layer of the
# classifier, so it takes one line to do it wrongly; the photos, the weights and the way to solve
# the head stay the same.

# %%
if isinstance(weights, str):
    display(Words(f"Left out, because there are no ImageNet weights: {weights}"))
else:
    set_weights(classifier, weights)  # block5 as it was before it was trained
    only_scale = np.eye(3).reshape(1, 1, 3, 3) / 255
    classifier.get_layer("preprocessing").set_weights([only_scale, np.zeros(3)])
    wrongly = solved_head(frozen_maps()).validation
    rightly = results[0].validation
    prepared = {"mean-subtracted BGR": rightly, "RGB, 1/255": wrongly}
    display(
        Table(
            ["pixels as", "validation accuracy", "log-loss"],
            [
                [name, percent(scores.accuracy), number(scores.log_loss, 4)]
                for name, scores in prepared.items()
            ],
        ),
        Picture(
            figures.accuracies(
                {name: scores.accuracy for name, scores in prepared.items()}, counts["validation"]
            ),
            alt="Validation accuracy of the same head by preprocessing. "
            + "; ".join(f"{name}: {percent(s.accuracy)}" for name, s in prepared.items())
            + ".",
        ),
        Words(
            f"Wrong answers: {round((1 - rightly.accuracy) * rightly.n)} of {rightly.n} against "
            f"{round((1 - wrongly.accuracy) * wrongly.n)}. The bars are 95 % intervals. To these "
            "weights 0 is ImageNet's mean colour, so numbers from 0 to 1 are a picture of nearly "
            "that one colour, with 1/255 of the contrast, and red and blue are exchanged."
        ),
    )

# %%
sketchbook.cleanup()
clock, work, cores = time.monotonic() - started, time.process_time(), os.cpu_count()
Words(
    f"All of this took {duration(clock)} by the clock and {duration(work)} of the processor's "
    f"time, on {cores} cores"
    + (" that had much other work meanwhile" * (clock > 1.5 * work / cores))
    + ". To run it again, on your photos if you like (a folder as train.py takes it):"
)

# %% [markdown]
#     python -m app notebook notebooks/vgg16.py
#     CATS_DOGS_PHOTOS=my_photos python -m app notebook notebooks/vgg16.py
#
# `CATS_DOGS_WEIGHTS` names the file of ImageNet weights (or `none`); without it they are found as
# `train.py` finds them. `CATS_DOGS_SMALL=1` runs every cell in its smallest form, which teaches
# nothing.
