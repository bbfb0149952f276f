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
# # Optimizers, each at its own rate, and schedules
#
# "Adam is faster" and "lower the rate towards the end" are both about the learning rate. Two studies look at them:
# `optimizer_comparison` trains one network under twelve optimizers, each at the rate that suits it, and
# `schedule_comparison` under ten schedules at two rates. `python -m studies.run +study=NAME` makes either of them.

# %%
import os
import textwrap
from pathlib import Path

os.chdir(next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "pyproject.toml").exists()))

import numpy as np
from IPython.display import HTML

from analysis import load
from analysis.estimate import comparison, dynamics
from analysis.show import answers, executions, plots, tables

execution = load.pinned("optimizer_comparison")
optimizers, keys = execution.study, execution.keys
trials, epochs = load.trials(optimizers.name, keys=execution.arms), load.epochs(optimizers.name, keys=keys)
print(executions.pinned(execution))

# %% [markdown]
# ## Each optimizer at its own rate
#
# A rate is not a number that optimizers share. A step of SGD is the rate times the gradient; one of Adam moves each
# weight by about the rate, however long the gradient is. To compare them at one rate is to compare how well it suits
# each.

# %%
rates = load.settings(optimizers.name, keys=keys).groupby("optimizer", sort=False)["optimizer.learning_rate"].first()
rates.to_frame().T

# %%
compared = comparison.comparison(trials, ["optimizer"], optimizers.metric, optimizers.baseline)
HTML(tables.comparison_table(compared, ["optimizer"], optimizers.metric, optimizers.baseline, "html"))

# %%
arms = plots.Arms(compared, colour=["optimizer"])
plots.comparison(arms, compared, comparison.by_seed(trials, ["optimizer"], optimizers.metric), optimizers.metric)

# %% [markdown]
# Mind the axis: the whole figure spans a few points of accuracy, and the rings of one arm can span most of it. A seed
# moves an arm more than the optimizer moves the mean.

# %%
for line in answers.answer(compared, ["optimizer"], optimizers.metric, optimizers.baseline):
    print(textwrap.fill(line, 100), end="\n\n")

# %% [markdown]
# An arm that is not clearly better is not thereby the same. What one can say is how large a difference could still be:
# the end of each difference's interval that lies farther from zero.

# %%
ends = compared.set_index("optimizer")[["difference_low", "difference_high"]].dropna()
ends.abs().max(axis="columns").rename("could differ from the baseline by up to").to_frame().round(3).T

# %% [markdown]
# If that much does not matter to you, the question is settled for this network and these images; if it does, you need
# more seeds.
#
# ## How long it takes
#
# Where all end alike, what it takes to get there is the better question.

# %%
plots.curves(arms, dynamics.curves(trials, epochs, ["optimizer"], "val_accuracy"), "val_accuracy")

# %% [markdown]
# The curves part in the first few epochs and then merge. A figure of curves tempts to name the one on top at some
# epoch; the cost is better read sideways, as the epochs that it takes to a target. In plain pandas, the first epoch
# at which a trial is at or above it:

# %%
target = 0.95


def epochs_to(target, trials, epochs):
    """The first epoch of each trial at or above the target, infinity if it never is."""
    first = epochs[epochs["val_accuracy"] >= target].groupby("key")["epoch"].min()
    return trials["key"].map(first).fillna(np.inf)


def cost(trials, by):
    """The least, median and greatest number of epochs by arm, and how many trials got there."""
    grouped = trials.groupby(by, sort=False)["reached"]
    return grouped.agg(
        trials="size", reached=lambda reached: np.isfinite(reached).sum(), least="min", median="median", greatest="max"
    )


cost(trials.assign(reached=epochs_to(target, trials, epochs)), "optimizer").sort_values("median")

# %% [markdown]
# A trial that does not get to the target is *censored*: it takes longer than it was given, nobody knows how much
# longer. To drop it would flatter the arms that fail most; to give it the last epoch would as well. Here it counts as
# infinity, which is right for a median: that is known, and finite, as long as more than half of an arm's trials get
# there.
#
# The slowest optimizer takes several times as many epochs as the quickest. The ranges from the least to the greatest
# are wide, though, and neighbours in this table overlap: it tells the quick from the slow and not the second from the
# third. Nor is its order that of the final accuracy, so "faster" and "better" are two claims.
#
# ## Schedules at two rates

# %%
execution = load.pinned("schedule_comparison")
schedules, keys = execution.study, execution.keys
trials, epochs = load.trials(schedules.name, keys=execution.arms), load.epochs(schedules.name, keys=keys)
print(executions.pinned(execution))
by = list(schedules.factors)
compared = comparison.comparison(trials, by, schedules.metric, schedules.baseline)

arms = plots.Arms(compared, colour=["schedule"], panels=["optimizer.learning_rate"])
plots.comparison(arms, compared, comparison.by_seed(trials, by, schedules.metric), schedules.metric)

# %% [markdown]
# The same schedules, from a rate that can be held on the left and from one that is too high on the right. On the left
# they look alike. On the right some arms have seeds far behind the others, and those of a constant rate are among
# them.

# %%
for line in answers.answer(compared, list(schedules.factors), schedules.metric, schedules.baseline):
    print(textwrap.fill(line, 100), end="\n\n")

# %% [markdown]
# On the left the answer is more careful than the eye: it finds nothing clearly better. On the right it finds what is: a
# few unlucky seeds make the constant rate's mean low, and they make its deviation large in the same stroke. The
# deviation itself is a finding:

# %%
compared.pivot(index="schedule", columns="optimizer.learning_rate", values="sd").round(3)

# %% [markdown]
# At the higher rate what most schedules buy, besides the points, is that the result depends less on the seed.
#
# ### Sensitivity to the rate

# %%
few = compared[compared["schedule"].isin(["constant", "cosine", "exponential", "one_cycle"])]
plots.sensitivity(plots.Arms(few, colour=["schedule"]), few, "optimizer.learning_rate", schedules.metric)

# %% [markdown]
# A line that is flat forgives a wrong rate. The constant schedule's falls to the right, the others do not: a schedule
# tries many rates in one run, so it matters less which one it starts from. Two points make a line and not a curve;
# for a curve, name more rates:
#
#     python -m studies.run +study=schedule_comparison study.name=rates \
#         'study.factors={optimizer.learning_rate:[.003,.01,.03,.1,.3],schedule:[constant,cosine]}'

# %%
plots.curves(arms, dynamics.curves(trials, epochs, by, "val_accuracy"), "val_accuracy")

# %% [markdown]
# At the higher rate the constant schedule is unsteady to the end. Schedules that lower the rate early run ahead;
# those that lower it late are as unsteady until they do. Their cost, to the same target:

# %%
reached = cost(trials.assign(reached=epochs_to(target, trials, epochs)), by)
reached.unstack("optimizer.learning_rate")[["reached", "median"]]

# %% [markdown]
# At the higher rate look at *reached* before *median*: an arm whose trials did not all get there is not slow but
# uncertain, and an average over those that did would hide it.
