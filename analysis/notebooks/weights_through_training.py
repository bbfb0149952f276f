# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Weights through training
#
# Three networks of the same shape, eight hidden layers of 64 ReLUs, that differ in their initial weights alone: one
# learns, one is dead, one explodes. The study `init_comparison` has them, at five seeds each, with the statistics of
# every weight at every epoch; `python -m studies.run +study=init_comparison` makes it.

# %%
import os
from pathlib import Path

os.chdir(next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "pyproject.toml").exists()))

import numpy as np
import pandas as pd

from analysis import load
from analysis.estimate import dynamics
from analysis.show import executions, plots

by = ["initializer", "model.depth"]
execution = load.pinned("init_comparison")
trials = load.trials("init_comparison", keys=execution.arms)
layers = load.layers("init_comparison", keys=execution.keys)
print(executions.pinned(execution))
good, dead, exploding = (
    {"initializer": name, "model.depth": 8} for name in ("he_normal", "normal_small", "normal_large")
)
names = [arm["initializer"] for arm in (good, dead, exploding)]

trials[(trials["model.depth"] == 8) & trials["initializer"].isin(names)].groupby("initializer", sort=False).agg(
    seeds=("seed", "size"),
    diverged=("status", lambda status: (status == "diverged").sum()),
    epochs=("epochs", "max"),
    best_val_accuracy=("best_val_accuracy", "mean"),
).loc[names].round(3)

# %% [markdown]
# `he_normal` draws weights with variance 2 / fan_in, `normal_small` with a standard deviation of .01, `normal_large`
# with one of 1. The dead network is at chance to the end. The exploding one is over after its first epoch.
#
# ## Distributions

# %%
shown = trials[(trials["model.depth"] == 8) & trials["initializer"].isin(names)]
counts = load.densities("init_comparison", keys=shown["key"])
plots.ridgelines([good, dead, exploding], dynamics.densities(shown, counts, by))

# %% [markdown]
# A ridge is how one layer's weights are distributed at one epoch, the first at the top, all seeds' together. Mind the
# scales below: the three bells at the top differ in width by a hundred times. (He's has no tails yet: Keras cuts it off
# at two standard deviations.)
#
# - On the left the bells get wider and grow tails, most of all in the first layer, whose inputs are the pixels;
#   deeper layers change less.
# - In the middle nothing happens. Not "converged": the ridges never moved.
# - On the right there is one ridge, that of the untrained network. After it the weights are not numbers.
#
# ## What goes through
#
# At the same epochs every layer's outputs on the same 256 training images were looked at. Their standard deviation in
# the untrained network, and the share of units that are zero for every image, before training and after:

# %%
outputs = layers[layers["tensor"] == "output"].merge(shown[["key", "initializer"]])
last = outputs["epoch"].max()
ends = outputs[outputs["epoch"].isin([0, last])].pivot_table(
    index="layer", columns=["initializer", "epoch"], values=["sd", "dead"], sort=False
)
pd.concat(
    {"sd, untrained": ends["sd"].xs(0, axis=1, level="epoch")[names]}
    | {f"dead, epoch {epoch}": ends["dead"].xs(epoch, axis=1, level="epoch")[names[:2]] for epoch in (0, last)},
    axis=1,
).map("{:.2g}".format)

# %% [markdown]
# The good network hands its signal on as it got it. In the dead one it shrinks at every layer, and in the exploding one
# it grows at every layer, by the factors that the next sections find in the gradients. As it is drawn, the dead network
# is not dead in the sense of the word: most of its units fire, for some images, by almost nothing. Then the last biases
# learn how frequent the classes are, and what little comes back pushes the units of the deepest layers below zero for
# every image, nearly all of them.
#
# ## Norms, updates and gradients

# %%
medians = dynamics.medians(
    trials, layers, by, ["l2", "update_ratio", "gradient_norm", "distance", "cosine_distance", "sparsity_1e-2"]
)
plots.layer_maps([good, dead, exploding], medians)

# %% [markdown]
# Each map has a network's layers from its input at the top to its logits at the bottom, and epochs from left to
# right.
#
# - *Norm*: the square root of the sum of squared weights. A healthy one grows slowly; a dead one has one colour for
#   ever. The number is not good or bad in itself, and cannot be compared between layers of different shapes.
# - *Update ratio*: how long a step is beside the weights it changes. This one can be compared. In a network that
#   learns it is between one in a hundred and one in a thousand; far below, nothing is learnt; at one in ten, ten
#   steps can overwrite all that was there.
# - *Gradient norm*: in the middle it is at the foot of the scale, and then exactly zero, which has a colour of its
#   own: the errors at the output do not reach these weights. On the right there is nothing to show, since what is not
#   finite is left blank.
#
# ## Vanishing and exploding as a slope over depth
#
# It is tempting to look for vanishing gradients along a network's layers. The first epoch's, by layer:

# %%
first = medians[(medians["epoch"] == 1) & (medians["kernel"] != "logits")]
at_8 = first[first["model.depth"] == 8].pivot(index="kernel", columns="initializer", values="gradient_norm")
at_8[["normal_small", "random_uniform", "glorot_uniform", "he_normal"]].map("{:.1e}".format)

# %% [markdown]
# Read down a column: the norm hardly changes over most of the network (at its end it does where little signal is
# left: there the biases, which need none, have begun to feed the layers). Read across: the columns are orders of
# magnitude apart. A kernel's gradient is the product of the activations that enter it and of the errors that come
# back to it; the ones fade on the way forward, the others on the way back, and at every layer all the fading of the
# whole network has been gone through once. So it is between networks of different depths that it shows.
#
# A layer of `width` ReLUs, with weights of variance σ², multiplies a signal's norm by √(width · σ² / 2) (He et al.
# 2015, eq. 10). If that is all there is to it, the logarithm of the gradient's norm falls or rises on a line over
# depth, and half the binary logarithm of width · σ² / 2 is its slope. Measured and predicted:

# %%
norm = first.groupby(by, sort=False)["gradient_norm"].median().unstack()
measured = np.log2(norm[8].where(norm[8] > 0) / norm[2]) / (8 - 2)

width = load.settings("init_comparison", keys=execution.keys)["model.width"].iloc[0]
untrained = layers[(layers["epoch"] == 0) & (layers["tensor"] == "kernel") & (layers["layer"] != "logits")]
sd = untrained.merge(trials[["key", "initializer"]]).groupby("initializer")["sd"].mean()
predicted = np.log2(width * sd[sd > 0] ** 2 / 2) / 2

pd.DataFrame({"sd": sd, "measured": measured, "predicted": predicted}).sort_values("predicted").round(3)

# %% [markdown]
# The slope is in doublings per layer. He's is near zero, by construction: that is what the factor 2 is for. Glorot's,
# LeCun's and orthogonal weights halve the norm every two layers, which eight layers survive and sixteen hardly. The
# small ones lose a factor of five or more with *every* layer. `normal_large` should gain as much, and does: no
# gradient of the deeper network is finite, so there is no slope to measure. And `zeros` has no slope, since it has no
# signal.
#
# The formula knows nothing of the data, of the optimizer or of the shape of the draws, and still comes close. So
# whether a plain deep ReLU network is alive can be told from the variance of its weights, before it is trained.
#
# ## How far the weights travel

# %%
travellers = [{"initializer": name, "model.depth": 8} for name in ("glorot_uniform", "he_normal", "normal_small")]
plots.layer_maps(travellers, medians, ["distance", "cosine_distance", "sparsity_1e-2"])

# %% [markdown]
# - *Distance* is that from the initial weights, beside their norm: zero at first, and at 1 a layer has gone as far as
#   it was long.
# - *Cosine distance* leaves the length out and tells how far the layer has turned: 0 not at all, 1 by a right angle.
#   Scaling all weights of a ReLU layer changes nothing that a later layer cannot undo, so it is the turn that counts.
# - *Sparsity* is the share of weights smaller than a hundredth of the layer's largest. It rises when few weights
#   outgrow the rest, not because weights go to zero: this study has nothing that would send them there.

# %%
last = medians[medians["model.depth"] == 8].groupby([*by, "kernel"], sort=False).last().reset_index()
turned = last.assign(degrees=np.degrees(np.arccos(1 - last["cosine_distance"])))
turned.pivot(index="kernel", columns="initializer", values="degrees")[
    ["glorot_uniform", "he_normal", "normal_small"]
].round(1)

# %% [markdown]
# At the end of training every layer of the two that learn still points mostly where it was drawn: the first and the
# last layer have turned most, those in the middle least. The initial weights are not just where training starts; they
# are a good part of where it ends. `normal_small` has not turned by a tenth of a degree in any hidden layer, in as
# many steps as the others took.
#
# ## Early warnings
#
# Much of this shows long before a run is over. Every trial's records are looked through for a few such signs as it is
# stored (`studies/observe/early_warnings.py` says what they are); over the whole study:

# %%
dynamics.warnings(trials, "val_accuracy").round(3)

# %% [markdown]
# *epoch* is the median of those at which a sign was first seen; *value* and *others* are the mean accuracies of the
# trials with it and without it. `no gradient` is a verdict: none of its trials has left chance. `worse than guessing`
# is seen before the first step, and most of its trials diverge. `at chance` is a warning only: a slow network gives it
# too, and gets going later.
