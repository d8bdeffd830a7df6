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
# # Transfer learning, photo by photo
#
# In this lesson you teach a network to tell cats from dogs, or anything else from anything else.
# You need 10 photos of each class. You do not need a graphics card, and it takes about 5 minutes.
# The code is plain [Keras](https://keras.io), as in the tutorials that you may know.
#
# **Run the cells from top to bottom. Then change one line, and run them again.** Every number in
# this page comes from the cell above it. Words that are new to you are in the
# [glossary](../docs/glossary.md).
#
# To use your own photos, make one folder for each class, put these folders into one folder, and
# write its name into the first line of the next cell. Without photos, the lesson draws some.

# %%
PHOTOS = ""  # for example "pets", if your photos are in pets/cat and pets/dog
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
# Four names come from this project: one reads photos, three draw pictures. All the rest is Keras,
# NumPy and scikit-learn.

# %%
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no remarks on missing graphics cards

import logging

import keras
import numpy as np
from keras import layers
from keras.applications.vgg16 import VGG16, preprocess_input
from own_photos import load_photos
from pictures import curve, evidence, show
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

logging.getLogger("tensorflow").setLevel("ERROR")  # nor on several networks

# %% [markdown]
# ## 1. Your photos
#
# Half of the photos are there to learn from: **train**. The other half is there to ask about:
# **validation**. The network never learns from those. All are squeezed to 160×160 pixels. Of each
# class at most `per_class` photos are read. `shown` are the pictures that this page may show: your
# own photos, if you named a folder.

# %%
SIZE = 160
train, validation, shown = load_photos(PHOTOS, size=SIZE, per_class=100)
classes = train.classes
print(f"{len(train)} photos to learn from, {len(validation)} to ask about: {', '.join(classes)}")

# %%
few = np.concatenate([np.flatnonzero(shown.labels == k)[:6] for k in range(len(classes))])

# %%
show(
    shown.pixels[few],
    [shown.names[i] for i in few],
    labels=shown.labels[few],
    heading="You know at once what each one is. A network has to learn it.",
    alt=f"{len(few)} pictures of {', '.join(classes)}, each with a border in its class's colour.",
)

# %% [markdown]
# <details><summary>Whose pictures are these?</summary>
#
# In your own run they are yours, or drawings. The page that comes with the project learned from
# photos of cats and dogs whose terms do not allow to show them, so wherever it shows pictures, it
# shows eleven drawings, and Chelsea, the cat of Stéfan van der Walt (CC0).
# </details>
#
# ## 2. What fails in many tutorials
#
# VGG16 has 13 layers of convolutions in five blocks. A convolution has many small **filters**, each
# of which looks for one pattern. What one filter answers, at all places of the photo, is called a
# **channel**. At the end of each block width and height are halved. The numbers in the filters are
# the **weights**; training changes them, and the *learning rate* says how large its steps are.
#
# Here we take VGG16 with **random** weights, put a small classifier on top, and train all of it.
# Pixels are divided by 255, as tutorials do it. To save time the photos are small here, 80×80
# pixels, and few: 64.

# %%
answers = len(classes)
small = [np.stack([x[::2, ::2] for x in part.pixels]) / 255 for part in (train, validation)]
keras.utils.set_random_seed(0)
scratch = keras.Sequential(
    [
        VGG16(weights=None, include_top=False, input_shape=(80, 80, 3)),
        layers.Flatten(),
        layers.Dense(256, activation="relu"),
        layers.Dense(answers, activation="softmax"),
    ]
)

# %%
some = np.random.default_rng(0).permutation(len(train))[:64]
scratch.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)
scratch.optimizer.learning_rate = 1e-4
history = scratch.fit(small[0][some], train.labels[some], batch_size=16, epochs=5, verbose=0)

# %%
loss, from_nothing = scratch.evaluate(small[1], validation.labels, verbose=0)
print(f"this network: loss {loss:.3f}, {from_nothing:.0%} right")
print(f"guessing:     loss {np.log(answers):.3f}, {1 / answers:.0%} right")

# %% [markdown]
# The **loss** says how wrong the network's answers are. Here it is that of guessing: ln 2 = 0.693
# for two classes, and ln of their number for more. The network gives nearly the same answer to
# every photo. It is not broken; it would need far more photos, a better start and far more time.
# Why this happens, layer by layer, is in the second notebook,
# [VGG16 in depth](2_vgg16_in_depth.ipynb).
#
# ## 3. Borrow a network that can see already
#
# ImageNet is a collection of 1.3 million photos in 1,000 classes. VGG16 has been trained on it for
# weeks. We take its convolutions and leave out its last three layers, which name the 1,000 classes:
# `include_top=False`. Keras downloads the weights once (59 MB).

# %%
del scratch
keras.utils.clear_session()  # gives its memory back; eagerly, because a graph would keep it
WEIGHTS = os.environ.get("CATS_DOGS_WEIGHTS", "imagenet")  # or the name of a file with them
base = VGG16(weights=WEIGHTS, include_top=False, input_shape=(SIZE, SIZE, 3))
base.trainable = False  # frozen: nothing below changes these weights
print(f"{base.count_params():,} weights, {len(base.layers)} layers, output {base.output.shape[1:]}")

# %%
for block in range(1, 6):
    convolutions = [x for x in base.layers if x.name.startswith(f"block{block}_conv")]
    print(f"block {block}:", *(f"Conv2D({x.filters}, 3)" for x in convolutions), "MaxPooling2D")

# %% [markdown]
# The first convolution looks directly at colours. Each of its 64 filters is a little picture of 3×3
# pixels: it answers strongly where the photo looks like it.

# %%
kernel = base.get_layer("block1_conv1").get_weights()[0]  # (3, 3, 3, 64)
filters = np.moveaxis(kernel, -1, 0)[..., ::-1]  # VGG16 reads blue, green, red
low, high = filters.min(axis=(1, 2, 3)), filters.max(axis=(1, 2, 3))

# %%
show(
    (filters - low[:, None, None, None]) / (high - low)[:, None, None, None],
    columns=16,
    heading="Block 1 looks for edges and for colours, nothing more",
    alt="64 tiles of 3×3 pixels: light-dark edges in several directions, and plain colours.",
)

# %% [markdown]
# ## 4. Give it pixels as it knows them
#
# VGG16 was trained on pixels in the order blue, green, red, with the mean colour of ImageNet
# subtracted. `preprocess_input` does this. Many tutorials divide by 255 instead. Nothing breaks,
# and no warning comes.

# %%
prepared = {
    "right": preprocess_input(shown.pixels.astype("float32")),
    "red and blue swapped": preprocess_input(shown.pixels[..., ::-1].astype("float32")),
    "divided by 255": shown.pixels.astype("float32") / 255,
}
for name, x in prepared.items():
    print(f"{name:22} from {x[:12].min():6.1f} to {x[:12].max():6.1f}")

# %% [markdown]
# What does the network make of the first photo? The model below gives the output of each block.
# The upper row is what goes in, on the same scale. The lower row is how strongly block 5 answers at
# each place, all its 512 channels together. There, compare the numbers: each picture has its own
# scale.

# %%
blocks = keras.Model(base.input, [base.get_layer(f"block{b}_pool").output for b in range(1, 6)])
seen = [x[0, ..., ::-1] + 128 for x in prepared.values()]
maps = [blocks.predict(x[:1], verbose=0)[4][0].mean(axis=-1) for x in prepared.values()]

# %%
show(
    [np.clip(x, 0, 255).astype("uint8") for x in seen] + maps,
    [*prepared, *(f"block 5: {m.mean():.2f} on average" for m in maps)],
    columns=3,
    heading="Divided by 255, a photo is nearly plain grey to VGG16",
    alt="One picture prepared in three ways, and below each what block 5 answers to it.",
)

# %% [markdown]
# ## 5. Compute the features once
#
# The frozen network answers the same photo in the same way every time. So we ask it **once** for
# each photo and keep the answers, its **features**. All training below takes seconds, because it
# never runs the big network again. Of each photo we keep the output of block 4, for later, and of
# block 5: 5×5 places with 512 numbers each.

# %%
ends = [base.get_layer("block4_pool").output, base.output]
extractor = keras.Model(base.input, ends)


def features(pixels):
    return extractor.predict(preprocess_input(pixels.astype("float32")), batch_size=8, verbose=0)


# %%
train4, train5 = features(train.pixels)
validation4, validation5 = features(validation.pixels)
shown5 = features(shown.pixels)[1]
print("block 4:", train4.shape, "block 5:", train5.shape)

# %% [markdown]
# ## 6. Three classifiers, one after the other
#
# ### Flatten, Dense(256), sigmoid
#
# This is the classifier of most tutorials. For two classes it ends with one number and `sigmoid`.
# For more classes it ends with one number for each class and `softmax`. For two classes both are
# the same thing: sigmoid(x) = softmax(0, x).

# %%
two = answers == 2
keras.utils.set_random_seed(0)
tutorial = keras.Sequential(
    [
        layers.Flatten(),
        layers.Dense(256, activation="relu"),
        layers.Dense(1 if two else answers, activation="sigmoid" if two else "softmax"),
    ]
)
tutorial.compile("adam", "binary_crossentropy" if two else "sparse_categorical_crossentropy")
tutorial.fit(train5, train.labels, epochs=10, batch_size=16, verbose=0)
print(f"{tutorial.count_params():,} weights to train")

# %% [markdown]
# Two numbers say how good it is. **Accuracy** is the share of right answers. **Log-loss** is the
# price of being sure: 0 is perfect, guessing between two costs 0.69, and a wrong answer that was
# very sure costs a lot. It is the number that Keras calls `crossentropy`.

# %%
ladder = {}


def judge(name, probabilities):
    right = (probabilities.argmax(axis=1) == validation.labels).mean()
    ladder[name] = right, log_loss(validation.labels, probabilities, labels=range(answers))
    print(f"{name:28} right {right:6.1%}   log-loss {ladder[name][1]:.2f}")


# %%
p = tutorial.predict(validation5, verbose=0)
judge("Flatten + Dense(256)", np.hstack([1 - p, p]) if two else p)

# %% [markdown]
# ### 512 averages, one linear layer
#
# Average each channel over the 25 places: 512 numbers for a photo. Then one linear layer: for each
# class a weight for each of the 512 numbers. Its loss has a single valley, so it can be solved: no
# learning rate, no epochs, and the same answer each time. scikit-learn calls it
# `LogisticRegression`.

# %%
averages, asked = train5.mean(axis=(1, 2)), validation5.mean(axis=(1, 2))
linear = LogisticRegression(max_iter=1000).fit(averages, train.labels)
judge("512 averages, linear", linear.predict_proba(asked))

# %% [markdown]
# ### Which channels answer *together*?
#
# Multiply each channel with each other one, at the same place, and average over the places: 512 ×
# 512 numbers. (The table is symmetric, so half of it is enough; the root makes the large ones less
# loud.) This is what `train.py` does in its stage `head`.

# %%
upper = np.triu_indices(512)


def pairs(maps):
    flat = maps.reshape(25, 512)
    products = np.sqrt(flat.T @ flat / 25)[upper]
    return products / np.linalg.norm(products)


# %%
x, y = (np.stack([pairs(one) for one in part]) for part in (train5, validation5))
together = LogisticRegression(C=100, max_iter=1000).fit(x, train.labels)
judge("pairs of channels, linear", together.predict_proba(y))
del x, y

# %% [markdown]
# And what does it cost to divide by 255? The same 512 averages, the same linear layer:

# %%
wrong = [base.predict(part.pixels / 255, batch_size=8, verbose=0) for part in (train, validation)]
wrong = [part.mean(axis=(1, 2)) for part in wrong]
careless = LogisticRegression(max_iter=1000).fit(wrong[0], train.labels)
judge("512 averages, divided by 255", careless.predict_proba(wrong[1]))

# %% [markdown]
# Compare the log-losses. The tutorial's classifier is often nearly as *right* as the others, but
# too *sure* of its mistakes. And a small difference in accuracy may be luck. With other photos of
# the same kind, each number would be somewhere in the range that the next cell prints. Where the
# ranges of two classifiers overlap widely, so few photos cannot tell them apart:

# %%
for name, (right, _) in ladder.items():
    trials = binomtest(round(right * len(validation)), len(validation))
    low, high = trials.proportion_ci(method="wilson")
    print(f"{name:28} right {right:6.1%}, with 95 % certainty between {low:.1%} and {high:.1%}")

# %% [markdown]
# ## 7. How many photos does it need?
#
# We learn from only a few photos of each class, chosen at random, ten times, and ask about all
# validation photos.

# %%
most = np.bincount(train.labels).min()
counts = [n for n in (1, 2, 3, 5, 10, 20, 50, 100) if n <= most]
found = np.zeros((10, len(counts)))

# %%
for draw, column in np.ndindex(found.shape):
    random = np.random.default_rng(draw)
    chosen = [random.permutation(np.flatnonzero(train.labels == k)) for k in range(answers)]
    chosen = np.concatenate([own[: counts[column]] for own in chosen])
    model = LogisticRegression(max_iter=1000).fit(averages[chosen], train.labels[chosen])
    found[draw, column] = model.score(asked, validation.labels)

# %%
curve(
    counts,
    found,
    others={"the same network from random weights": from_nothing},
    heading=f"{counts[0]} photo of each class: {found[:, 0].mean():.0%} right; "
    f"{counts[-1]} photos: {found[:, -1].mean():.0%}",
    alt="Right answers by photos of each class: "
    + "; ".join(f"{n}: {mean:.0%}" for n, mean in zip(counts, found.mean(axis=0)))
    + f". From random weights {from_nothing:.0%}.",
)

# %% [markdown]
# This is why one does transfer learning. Where is *your* number of photos on this line? Would twice
# as many help? Look at how much the line still rises there.
#
# ## 8. What does it look at?
#
# ### One photo through the five blocks
#
# From each block, the six channels that answer most strongly to one photo. Bright is strong. Where
# only the border is bright, a channel takes the end of the picture for an edge.

# %%
outputs = [x[0] for x in blocks.predict(prepared["right"][:1], verbose=0)]
strongest = [x[..., np.argsort(x.max(axis=(0, 1)))[:-7:-1]] for x in outputs]
show(
    [m for x in strongest for m in np.moveaxis(x, -1, 0)],
    [f"block {b}: {x.shape[0]}×{x.shape[0]}" for b, x in enumerate(outputs, 1) for _ in range(6)],
    heading="The first blocks see edges and colours, the last ones see parts",
    alt="The first picture as five blocks see it: fine outlines first, then fewer, coarser spots.",
)

# %% [markdown]
# ### What does a channel of block 5 respond to?
#
# Which channels differ most between two classes? We take six of them. For each we look for the nine
# places in all photos where it answers most strongly, and cut them out.

# %%
first, second = (averages[train.labels == k] for k in (0, 1))
difference = (first.mean(axis=0) - second.mean(axis=0)) / (averages.std(axis=0) + 1e-6)
order = np.argsort(difference)
channels = [*order[:-4:-1], *order[:3]]  # three for the first class, three for the second
print(*(f"channel {c}: {classes[int(k > 2)]}" for k, c in enumerate(channels)), sep="; ")


# %%
def crop(channel, rank):
    photos = np.argsort(shown5[..., channel].max(axis=(1, 2)))[::-1]
    photo = photos[rank % len(photos)]  # one crop from each photo
    row, column = np.unravel_index(shown5[photo, ..., channel].argmax(), (5, 5))
    top, left = (min(max(32 * k - 16, 0), SIZE - 64) for k in (row, column))
    return shown.pixels[photo, top : top + 64, left : left + 64]


# %%
show(
    [crop(channel, rank) for channel in channels for rank in range(9)],
    [f"{c}" if rank == 0 else "" for c in channels for rank in range(9)],
    labels=np.repeat([0, 0, 0, 1, 1, 1], 9),
    columns=9,
    heading="Each channel looks for one kind of part. Nobody told it to.",
    alt="Six rows of nine crops; each row shows where one channel of block 5 answers most.",
)

# %% [markdown]
# What does each row have in common? The network learned these parts from ImageNet, not from you.
# Each row begins with the strongest answer. With few photos, the last crops of a row show places
# where the channel hardly answers.
#
# ### Why this answer?
#
# The linear layer multiplies each average by a weight and adds up. An average is a sum over 25
# places. So the score is a sum of 25 numbers, one for each place, and we can write each number on
# its place. The photo's class is compared with all others.

# %%
photo = 0
is_class = train.labels == shown.labels[photo]
one = LogisticRegression(max_iter=1000).fit(averages, is_class)
tiles = (shown5[photo] @ one.coef_[0] + one.intercept_[0]) / 25
score = tiles.sum()
assert np.isclose(score, one.decision_function(shown5[photo].mean(axis=(0, 1))[None])[0], atol=1e-3)

# %%
evidence(
    shown.pixels[photo],
    tiles,
    label=shown.labels[photo],
    heading=f"The 25 numbers add up to {score:+.1f}; above 0 the answer is “{shown.names[photo]}”",
    alt=f"A picture of {shown.names[photo]}, and 25 tiles with what each says for or against it.",
)

# %% [markdown]
# ### What if it shows something else?
#
# A linear layer has no way to say "none of these": it must choose. But we can ask which photos are
# nearest. Here are two photos and the five photos with the most similar features. The 512 averages
# of each are scaled, so that two photos are between 0 (the same) and 1.41 (nothing in common) away
# from each other. The flower comes with scikit-learn (by vultilion, CC BY 2.0).

# %%
from PIL import Image
from sklearn.datasets import load_sample_image

flower = np.asarray(Image.fromarray(load_sample_image("flower.jpg")).resize((SIZE, SIZE)))
known = np.sqrt(shown5.mean(axis=(1, 2)))
known /= np.linalg.norm(known, axis=1, keepdims=True)
stranger = np.sqrt(features(flower[None])[1].mean(axis=(1, 2)))[0]
stranger /= np.linalg.norm(stranger)

# %%
rows, nearest = [], []
for image, own in ((shown.pixels[-1], known[-1]), (flower, stranger)):
    distance = np.linalg.norm(known - own, axis=1)
    near = [i for i in distance.argsort() if distance[i] > 1e-3][:5]
    rows += [(image, "which is it?"), *((shown.pixels[i], f"at {distance[i]:.2f}") for i in near)]
    nearest.append(distance[near[0]])

# %%
show(
    *zip(*rows),
    heading="The nearest photo is {:.2f} away; for the flower, it is {:.2f}".format(*nearest),
    alt="Two rows: a photo and the five nearest; distances are larger in the flower's row.",
)
# %% [markdown]
# `train.py` measures such a distance, too. Where it is larger than for nearly all photos of the
# classes, the answer is "neither".
#
# ## 9. More photos from the same photos
#
# Is a cat that looks to the left still a cat when it looks to the right? Then a mirror image is a
# new photo for free. This is called **augmentation**. You should still recognise what each shows.

# %%
keras.utils.set_random_seed(3)
change = keras.Sequential(
    [
        layers.RandomFlip("horizontal"),
        layers.RandomZoom((-0.3, 0.0)),
        layers.RandomTranslation(0.1, 0.1),
        layers.RandomBrightness(0.2),
    ]
)
views = change(np.repeat(shown.pixels[:1], 8, axis=0).astype("float32"), training=True)
show(
    keras.ops.convert_to_numpy(views).astype("uint8"),
    columns=8,
    heading="Eight views, one photo: the class stays the same",
    alt="The first picture eight times: mirrored, enlarged, moved, lighter and darker.",
)

# %% [markdown]
# ## 10. Fine-tuning
#
# Until now VGG16 stayed as it was. **Fine-tuning** lets its last block learn, too, a very little.
# The new layer on top must know its task before. If it began with random weights, its large errors
# would destroy what block 5 knows. So it gets the weights that scikit-learn has found in section 6
# for the 512 averages.

# %%
keras.utils.set_random_seed(0)
sign = np.array([[-0.5], [0.5]] if answers == 2 else [[1.0]])  # sigmoid(x) = softmax(-x/2, x/2)
head = layers.Dense(answers, activation="softmax")
head.build((None, 512))
head.set_weights([(sign * linear.coef_).T, sign[:, 0] * linear.intercept_])

# %% [markdown]
# Then block 5 joins, at a learning rate of 1e-5. The blocks below stay frozen, so we can start from
# the features of block 4 that we kept.

# %%
block5 = [layer for layer in base.layers if layer.name.startswith("block5")]
for layer in block5:
    layer.trainable = True
tuned = keras.Sequential([*block5, layers.GlobalAveragePooling2D(), head])
tuned.compile(keras.optimizers.Adam(1e-5), "sparse_categorical_crossentropy")
judge("before fine-tuning", tuned.predict(validation4, verbose=0))

# %%
tuned.fit(train4, train.labels, epochs=3, batch_size=16, verbose=0)
judge("after fine-tuning", tuned.predict(validation4, verbose=0))

# %% [markdown]
# With few photos, fine-tuning may help, do nothing, or harm a little. If the log-loss on validation
# photos rises while that on train photos falls, the network is learning your photos by heart:
# **overfitting**. `verbose=2` in `tuned.fit` shows the log-loss on train photos after each epoch.
#
# ## 11. Now the same with `train.py`
#
# This project does what you have just done, and more: it finds damaged files and copies, keeps test
# photos that are asked only once, checks whether "93 % sure" is right 93 times in 100, answers
# "neither" where nothing is near, and writes a report. In a terminal, in the project's folder:
#
#     python train.py --data pets
#     python predict.py photo.jpg
#
# | here | there |
# |---|---|
# | `preprocess_input` | the first layer of the model: you cannot forget it |
# | features computed once | the feature cache |
# | pairs of channels, `LogisticRegression` | stage `head` |
# | fine-tuning block 5 | stage `block5`, kept only if it helps on validation |
# | validation photos | validation to choose with, test to be asked once |
# | nearest photos | novelty, and the answer `neither` |
#
# ## 12. Questions
#
# Think first, then open the answer. Most of them need one changed line. Then restart the kernel and
# run all cells: section 10 has changed block 5, and all sections above it use `base`.
#
# <details><summary>1. What is the loss of guessing among 3 classes? Among 24?</summary>
#
# ln 3 = 1.10 and ln 24 = 3.18. The last lines of section 2 print it for your classes.
# </details>
# <details><summary>2. Set <code>per_class=10</code> in section 1. What changes most: accuracy, or
# how sure you can be of it?</summary>
#
# The range of luck in section 6 grows most: with five validation photos of each class, one photo
# is 10 %.
# </details>
# <details><summary>3. In <code>features</code> (section 5), write
# <code>pixels[..., ::-1].astype</code> for <code>pixels.astype</code>. What does it cost to swap
# red and blue?</summary>
#
# Less than dividing by 255: shapes stay, only the colours are wrong. Look at the pictures in
# section 4.
# </details>
# <details><summary>4. Leave out <code>base.trainable = False</code> (section 3). Does section 6
# change?</summary>
#
# No. There the features are computed already, and nothing that is trained contains the base.
# </details>
# <details><summary>5. Use a learning rate of 1e-2 instead of 1e-5 for fine-tuning. What
# happens?</summary>
#
# The weights of block 5 are destroyed in the first steps; the loss goes up to that of guessing or
# beyond. Beyond it the network is not guessing, but sure, and wrong in half of the cases:
# [VGG16 in depth](2_vgg16_in_depth.ipynb) shows how.
# </details>
# <details><summary>6. In section 8, change <code>photo = 0</code> to another number. Does the
# evidence lie on the animal?</summary>
#
# If it lies on the background, the network has learned where your animals sit, and not what they
# are. Take photos of both classes in the same places.
# </details>
# <details><summary>7. Your school wants to sort 10,000 photos with this. What do you tell
# them?</summary>
#
# The share of right answers, with its range, on photos that look like theirs; and what happens to
# photos that show something else. Both are in the report of `train.py`.
# </details>
