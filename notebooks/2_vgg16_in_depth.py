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
# # VGG16 in depth
#
# VGG16 is the network of most cats-and-dogs tutorials, and the one that this project trains. The
# [first notebook](1_transfer_learning.ipynb) uses it. This one takes it apart: what its layers
# cost, why its convolutions are 3×3, and why nearly everyone who trains it from random weights sees
# an accuracy of 50 %.
#
# Every number comes from the cell above it. Run all cells again: about 6 minutes, 2.1 GB of memory.
#
# The paper: Simonyan and Zisserman, *Very Deep Convolutional Networks for Large-Scale Image
# Recognition*, ICLR 2015, [arXiv:1409.1556](https://arxiv.org/abs/1409.1556).

# %%
PHOTOS = ""  # a folder with two classes, 200 photos of each; empty: data/small, or drawings
REPOSITORY = ""  # the address of this project; needed only where its files are not, as on Colab

import os
import subprocess
import sys
from pathlib import Path

places = [Path.cwd(), *Path.cwd().parents, Path.cwd() / "cats-vs-dogs"]
project = next((place for place in places if (place / "notebooks/pictures.py").is_file()), None)
if project is None:
    if not REPOSITORY:
        sys.exit("expected the project's files here; received none; write its address above")
    project = places[-1]
    subprocess.run(["git", "clone", "--depth", "1", REPOSITORY, str(project)], check=True)
    needed = str(project / "requirements-colab.txt")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-r", needed], check=True)
sys.path[:0] = [str(project), str(project / "notebooks")]

# %% [markdown]
# What makes tables, pictures and the sentences under them is in `notebooks/vgg_show.py`. The
# networks of the paper are in `notebooks/vgg_paper.py`.

# %%
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no remarks on missing graphics cards

import gc
import logging
import tempfile

import keras
import numpy as np
import vgg_show as show
from keras import layers
from lesson import chosen_settings, lesson_photos, lesson_weights
from vgg_paper import CONFIGURATIONS, copy_dense_weights, layer_costs, vgg

logging.getLogger("tensorflow").setLevel("ERROR")  # nor on building several networks
settings = chosen_settings(PHOTOS)

# %% [markdown]
# ## The network as you know it
#
# These are the lines that most tutorials write one below the other. Five blocks of convolutions,
# each with twice as many filters as the one before, and then three dense layers: 13 convolutions
# and 3 dense layers are the 16 layers that learn.

# %%
lines = []
for convolutions, filters in zip((2, 2, 3, 3, 3), (64, 128, 256, 512, 512)):
    lines += [f'Conv2D({filters}, 3, padding="same", activation="relu")'] * convolutions
    lines += ["MaxPooling2D(2)"]
lines += ["Flatten()", *['Dense(4096, activation="relu")'] * 2, 'Dense(1000, activation="softmax")']
print(*lines, sep="\n")

# %% [markdown]
# `vgg("D")` builds just this. D is its name in the paper. Both have the same number of weights.
# Only the shapes are wanted here, so Keras draws no random numbers: they would fill the memory.

# %%
with keras.StatelessScope(initialize_variables=False):
    yours = keras.Sequential([layers.Input((224, 224, 3))])
    for convolutions, filters in zip((2, 2, 3, 3, 3), (64, 128, 256, 512, 512)):
        for _ in range(convolutions):
            yours.add(layers.Conv2D(filters, 3, padding="same", activation="relu"))
        yours.add(layers.MaxPooling2D(2))
    yours.add(layers.Flatten())
    for units, activation in ((4096, "relu"), (4096, "relu"), (1000, "softmax")):
        yours.add(layers.Dense(units, activation=activation))
    networks = {name: vgg(name, top="dense") for name in CONFIGURATIONS}
    for_24_classes = vgg("D", top="dense", classes=24)
keras.utils.clear_session()  # forgets the numbers that wait to be drawn
assert yours.count_params() == networks["D"].count_params()

# %% [markdown]
# ## Six networks from one table
#
# The paper compares six networks. They differ only in what the blocks hold. D is VGG16, E is VGG19.
# As in the paper, conv3-64 is a 3×3 convolution with 64 filters. LRN is the local response
# normalisation of an older network, AlexNet; it turned out not to help.

# %%
show.six_networks(networks, for_24_classes)

# %% [markdown]
# ## Layer by layer: where memory, weights and work are
#
# For one photo of 224×224 pixels. *Activations* are the numbers that a layer gives to the next, in
# float32, 4 bytes each. A multiply-add is one multiplication and one addition. A convolution uses
# each of its weights once at every place of the picture; a dense layer uses each weight once.

# %%
costs = layer_costs(networks["D"])
show.costs(costs)

# %%
show.shares(costs)

# %% [markdown]
# Often one reads 93 MB, or 24 million numbers. That figure stands under a table of Stanford's
# course notes CS231n, but the lines of that table add up to what is found here, as [others have
# noticed](https://github.com/cs231n/cs231n.github.io/issues/88). Training takes about twice as much
# as the outputs, because the gradients of the activations have to be somewhere too.
#
# ## Why 3×3?
#
# Before VGG, networks began with large kernels: 11×11 in AlexNet. Two 3×3 convolutions on top of
# each other see as far as one of 5×5, and three as far as one of 7×7. That can be checked. Change
# one pixel: if the output changes, the output "sees" that pixel.
#
# How much it changes is called the *gradient*. We let Keras train the **picture** for one step; the
# change of each pixel is its gradient.


# %%
class TrainedPicture(layers.Layer):
    """A picture whose pixels are trained as weights are."""

    def __init__(self, side):
        super().__init__()
        self.pixels = self.add_weight(shape=(1, side, side, 1), initializer="ones")

    def call(self, nothing):
        return nothing + self.pixels


# %%
def convolution():
    """Return a frozen one with positive weights: nothing cancels, and no ReLU is closed."""
    positive = keras.initializers.RandomUniform(0.1, 1.0)
    return layers.Conv2D(
        1, 3, padding="same", activation="relu", kernel_initializer=positive, trainable=False
    )


def gradient_of_the_centre(depth, side=13):
    """Return the gradient of the middle output of a stack of 3×3 convolutions, (side, side)."""
    picture, middle = TrainedPicture(side), layers.Cropping2D(side // 2)
    nothing = np.zeros((1, side, side, 1))
    model = keras.Sequential([picture, *(convolution() for _ in range(depth)), middle])
    model.compile(keras.optimizers.SGD(1.0), loss=lambda _, value: value, jit_compile=False)
    model.build(nothing.shape)
    before = keras.ops.convert_to_numpy(picture.pixels).copy()
    model.train_on_batch(nothing, np.zeros((1, 1, 1, 1)))
    return (before - keras.ops.convert_to_numpy(picture.pixels))[0, :, :, 0]


# %%
keras.utils.set_random_seed(0)
show.receptive_fields({depth: gradient_of_the_centre(depth) for depth in (1, 2, 3)})

# %% [markdown]
# Three small convolutions cover the same area with 45 % fewer weights: with C channels in and out
# and without biases, three of 3×3 have 3 · 9 · C² = 27 C² weights, and one of 7×7 has 49 C². There
# are also three ReLUs in place of one, so the stack can bend its answer three times.


# %%
def weights_of(kernel, depth, channels):
    with keras.StatelessScope(initialize_variables=False):  # their number is wanted, no values
        stack = [layers.Conv2D(channels, kernel, use_bias=False) for _ in range(depth)]
        count = keras.Sequential([layers.Input((16, 16, channels)), *stack]).count_params()
    keras.utils.clear_session()
    return count


show.saved({width: (weights_of(3, 3, width), weights_of(7, 1, width)) for width in (64, 256, 512)})

# %% [markdown]
# ## The failure that everyone meets
#
# Take VGG16 with random weights, show it cats and dogs, and it answers "cat" with a probability of
# 0.5, after one epoch and after ten. Its loss stands at ln 2 = 0.693, the price of guessing between
# two. The networks below all have the real depth: 13 convolutions, in the paper's widths, and 3
# dense layers. The first two of these have 2,048 numbers instead of 4,096, so that a small computer
# has room for them, and there is no dropout. Only one thing changes at a time: the starting weights
# (1–3), batch normalisation (4), or which layers train (5).

# %%
sketchbook = tempfile.TemporaryDirectory()  # for drawings, where there are no photos
photos = lesson_photos(project, settings, Path(sketchbook.name) / "drawn")
weights = lesson_weights()
show.photos(photos, weights)

# %%
size, batch = settings.scratch_size, 16
seen, seen_targets = photos.pixels("train", size, settings.scratch_train)
asked, asked_targets = photos.pixels("validation", size)
show.scratch_settings(settings, len(seen), batch)


# %%
def scaled(pixels):
    """Scale to 0 … 1, as most tutorials do."""
    return (pixels / 255).astype("float32")


def mean_subtracted(pixels):
    """Prepare as the ImageNet weights were trained: BGR, ImageNet's mean colour taken away."""
    return keras.applications.vgg16.preprocess_input(pixels.astype("float32"))


# %% [markdown]
# ### The signal fades
#
# Before any training: how much do the outputs of each layer vary? Keras draws the starting weights
# by a rule called *Glorot uniform*. ReLU throws half of the signal away. Each layer passes on about
# 70 % of the spread; after 15 layers 0.7 % is left. With the paper's normal distribution of spread
# 0.01 less is left. The authors trained the shallow network A first and began the deep ones with
# its layers; later, they note, Glorot's numbers did as well, but with 1.3 million photos and 74
# epochs. *He normal* (He et al. 2015) makes the weights larger, so that ReLU's half comes back.
# *Batch normalisation* (Ioffe and Szegedy 2015) brings what each convolution gives to its ReLU back
# to a spread of 1, whatever the weights.

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


def network(**kind):
    keras.utils.set_random_seed(0)
    gc.collect()  # the network before this one: its parts know each other, and would stay
    shape = {"input_shape": (size, size, 3), "classes": 2, "units": 2048}
    return vgg("D", top="dense", classifier_activation=None, **shape, **kind)


# %%
def spreads_of(model, inputs):
    """Return the standard deviation of what each layer gives to the next."""
    last = [x for x in model.layers if x.weights and not x.name.endswith("_bn")]
    names = {x.name for x in model.layers}
    after_relu = [f"{x.name}_relu" if f"{x.name}_relu" in names else x.name for x in last]
    outputs = keras.Model(model.input, [model.get_layer(name).output for name in after_relu])
    values = outputs(inputs, training=True)  # batch normalisation by this batch, as in training
    return [float(np.std(keras.ops.convert_to_numpy(value))) for value in values]


few = scaled(np.concatenate([seen[: batch // 2], seen[-(batch // 2) :]]))
spreads = {name: spreads_of(network(**kind), few) for name, kind in KINDS.items()}
show.spreads(costs, spreads)

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
def trained(model, inputs, asked_inputs):
    """Train a network; return the loss of each step and the accuracy on the validation photos."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Eagerly, because a graph keeps the memory of its network: 0.5 GB for each of the five.
    model.compile(keras.optimizers.Adam(1e-4), loss, jit_compile=False, run_eagerly=True)
    random, order, losses = np.random.default_rng(0), [], []
    for _ in range(settings.scratch_steps):
        if len(order) < batch:
            order = list(random.permutation(len(inputs)))
        now, order = order[:batch], order[batch:]
        losses.append(float(model.train_on_batch(inputs[now], seen_targets[now])))
        model.reset_metrics()  # else the loss is the mean of all steps so far
    answers = model.predict(asked_inputs, batch_size=8, verbose=0).argmax(axis=1)
    return losses, float((answers == asked_targets).mean())


# %%
results = {
    name: trained(network(**kind), scaled(seen), scaled(asked)) for name, kind in KINDS.items()
}
if weights:
    model = network()
    weights.put_into(model)
    for layer in model.layers:
        layer.trainable = layer.name in DENSE
    prepared = mean_subtracted(seen), mean_subtracted(asked)
    results["ImageNet's convolutions, frozen"] = trained(model, *prepared)
    del model

# %%
show.losses(results, len(asked))

# %% [markdown]
# A falling training loss says that the network learns *these* photos. That it names others rightly
# is another matter: from random weights that takes far more photos and steps than here. The
# ImageNet weights have already seen 1.3 million photos. That is why we start from them.
#
# ### The other failure: a loss of 7.97 or 8.06, and again 50 %
#
# A loss of 0.693 says "I do not know". A loss near 8 says "I am sure", of the same class for every
# photo. Then half of the answers are right and cost nothing, and the other half cost as much as
# Keras lets them. It cuts probabilities off at 0.0000001 and 0.9999999, and a wrong answer costs
# minus the logarithm of what is left. This happens when the learning rate is too high, so that the
# number before the sigmoid becomes very large. The sigmoid is **saturated** there: its slope is
# nearly 0, and training cannot come back.

# %%
half = np.array([[0.0], [1.0]], dtype="float32")  # a cat and a dog
for answer, name in ((1.0, "always surely a dog"), (0.0, "always surely a cat"), (0.5, "guessing")):
    said = np.full_like(half, answer)
    loss = np.mean(keras.ops.convert_to_numpy(keras.losses.binary_crossentropy(half, said)))
    print(f"{name:20} accuracy 50 %, loss {loss:.3f}")

# %% [markdown]
# The first two differ because 0.9999999 is no number that float32 has; the next one is 0.99999988.
# Keras 3 does not cut anything off in `fit`: it computes the loss from the number before the
# sigmoid. There the same failure shows as a loss of 30 or 100.
#
# | you see | it means | do |
# |---|---|---|
# | loss 0.693, accuracy 50 % | the signal fades | begin with ImageNet's weights |
# | loss near 8 or above, accuracy 50 % | the sigmoid is saturated | begin again at a lower rate |
#
# ## Transfer: what the frozen features know already
#
# Below, VGG16 with ImageNet's weights looks at the same photos, a little larger. Nothing is
# trained: its convolutions were never told which photo is of which class. The left picture shows
# the photos as points by their pixels, the right one by the network's features, each flattened to
# the two directions in which they differ most (*principal components*).

# %%
large_size = settings.transfer_size
shape = (large_size, large_size, 3)


def block5_of(prepare):
    """Return block5's output for the photos of both splits, and their classes."""
    frozen = vgg("D", top="none", input_shape=shape)
    weights.put_into(frozen)
    both = (photos.pixels(split, large_size) for split in ("train", "validation"))
    return [(frozen.predict(prepare(x), batch_size=8, verbose=0), y) for x, y in both]


rightly = block5_of(mean_subtracted) if weights else None

# %%
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

if weights:
    tiny = photos.pixels("validation", 32)[0] / 255
    described = {
        "By their pixels": tiny.reshape(len(tiny), -1),
        "By block5's features": np.sqrt(rightly[1][0].mean(axis=(1, 2))),
    }
    plane = {name: PCA(2, random_state=0).fit_transform(x) for name, x in described.items()}
    five, targets = KNeighborsClassifier(5), rightly[1][1]
    votes = {name: cross_val_score(five, x, targets, cv=5).mean() for name, x in described.items()}
    show.feature_planes(plane, targets, photos.classes, votes)

# %% [markdown]
# On such features one linear layer is enough, as the first notebook shows step by step.
#
# ## The same photos, prepared wrongly
#
# The ImageNet weights expect what they were trained on: blue, green, red, and the mean colour taken
# away, so that numbers run from about −124 to 151. Many tutorials divide by 255 instead. Nothing
# breaks, and no warning comes. What does it cost? The photos, the weights and the linear layer on
# 512 averages stay the same. Divided by 255, every photo looks almost plain grey to VGG16.


# %%
def judged(both):
    """Learn from train's averages; return the probabilities for the validation photos."""
    (learned, targets), (asked_maps, _) = both
    linear = LogisticRegression(max_iter=1000).fit(np.sqrt(learned.mean(axis=(1, 2))), targets)
    return linear.predict_proba(np.sqrt(asked_maps.mean(axis=(1, 2))))


if weights:
    probabilities = {
        "mean-subtracted BGR": judged(rightly),
        "RGB, 1/255": judged(block5_of(scaled)),
    }
    show.preparation(probabilities, rightly[1][1])

# %% [markdown]
# ## Appendix: dense layers are convolutions
#
# `fc1` takes 7 × 7 × 512 numbers, each with its own weight. A 7×7 convolution on a 7×7 picture does
# just that: it fits in exactly one position. `fc2` and `predictions` are then 1×1 convolutions.
# Nothing is approximated, only the shape of the weights is read differently. The paper tests in
# this way: it makes the network fully convolutional and gives it larger pictures.
#
# Both networks below have the same random weights and look at the same drawing. Their dense layers
# have 512 numbers instead of 4,096, so that a small computer has room for them.

# %%
keras.utils.set_random_seed(1)
small_top = {"classes": 24, "units": 512, "classifier_activation": None}
with_dense = vgg("D", top="dense", kernel_initializer="he_normal", **small_top)
convolutional = vgg("D", top="convolutional", input_shape=(None, None, 3), **small_top)
copy_dense_weights(with_dense, convolutional)
drawing = show.drawing(height=320, width=416)
x = mean_subtracted(drawing[None])
answer = with_dense.predict(x[:, :224, :224], verbose=0)
same = convolutional.predict(x[:, :224, :224], verbose=0)
large = convolutional.predict(x, verbose=0)
show.same_numbers(answer, same, large)

# %%
show.windows(drawing, for_24_classes, large.shape[1:3])

# %%
sketchbook.cleanup()
show.time_taken()

# %% [markdown]
#     python -m app notebook notebooks/2_vgg16_in_depth.py
#
# runs this page again. `CATS_DOGS_PHOTOS` names a folder of photos, in place of the first line.
# `CATS_DOGS_WEIGHTS` names the file of ImageNet weights (or `none`); without it they are found as
# `train.py` finds them. `CATS_DOGS_SMALL=1` runs every cell in its smallest form, which teaches
# nothing.
