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
# # Which initializers let a plain ReLU network train as it gets deeper?
#
# Eight initializers at three depths, each at the same five seeds: 120 small networks on 8×8 images of handwritten
# digits. `python -m studies.run +study=init_comparison` trains them, if the store has not got them yet; this notebook
# only reads. It compares the arms and then asks what their intervals do, and do not, allow one to say.

# %%
import os
import textwrap
from pathlib import Path

os.chdir(next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "pyproject.toml").exists()))

import numpy as np
import pandas as pd
from IPython.display import HTML

from analysis import load
from analysis.estimate import comparison, dynamics, intervals
from analysis.show import answers, executions, plots, tables

execution = load.pinned("init_comparison")
study, trials = execution.study, load.trials("init_comparison", keys=execution.arms)
print(executions.pinned(execution))
columns = ["initializer", "model.depth", "seed", "status", "epochs", "val_accuracy", "test_accuracy"]
trials[columns].sample(6, random_state=0).sort_index().round(3)

# %% [markdown]
# A row is a trial: one arm (an initializer at a depth) trained at one seed. The seed decides the split of the data,
# the initial draws and the order of the batches, and all arms share it.
#
# ## The comparison

# %%
by = list(study.factors)
compared = comparison.comparison(trials, by, study.metric, study.baseline)
HTML(tables.comparison_table(compared, by, study.metric, study.baseline, "html"))

# %% [markdown]
# How to read a row, from left to right:
#
# - *Failed* counts the trials that diverged. They are not dropped: each scores chance, an accuracy of one in ten.
# - *val accuracy* is the mean over the seeds ± their standard deviation. The deviation says how much one training run
#   differs from another; it does not get smaller with more seeds.
# - The first *95 % interval* is for the mean: where it would lie if one could train at every seed. It does get
#   smaller.
# - The *difference* is to the same depth's `glorot_uniform`, seed by seed, and has an interval of its own. This, and
#   not whether two arms' own intervals overlap, is what to look at to compare the two.

# %%
arms = plots.Arms(compared, colour=["initializer"], panels=["model.depth"])
plots.comparison(arms, compared, comparison.by_seed(trials, by, study.metric), study.metric)

# %% [markdown]
# The rings are the seeds, so one sees what each interval was made from. With two hidden layers everything but `zeros`
# learns. With eight the field is split: four initializers are close to the right edge, and four sit at chance. With
# sixteen the same four still move, but their rings are scattered and the intervals are wide: at this depth what an
# arm reaches in these few epochs depends on the seed more than on which of the four it is.

# %%
plots.heat(compared, ["initializer"], ["model.depth"], study.metric)

# %% [markdown]
# The map shows the same means without their uncertainty; it is for the pattern. The pattern is an *interaction*: how
# much the initializer matters depends on the depth. "Which initializer is best?" has no answer without the depth.
#
# ## The answer in words

# %%
for line in answers.answer(compared, by, study.metric, study.baseline):
    print(textwrap.fill(line, 100), end="\n\n")

# %% [markdown]
# "Clearly" has one meaning here: the paired t test, adjusted for the number of comparisons, has p ≤ 5 %. An arm that
# is not clearly worse is not thereby as good; five seeds just do not tell.
#
# ## What the intervals allow one to say
#
# ### Pairing by seed
#
# By hand, the difference of two arms takes two lines: a column an arm, a row a seed, and one minus the other.

# %%
depth = trials["model.depth"].min()
accuracy = trials[trials["model.depth"] == depth].pivot(index="seed", columns="initializer", values="val_accuracy")
difference = accuracy["he_normal"] - accuracy["glorot_uniform"]

by_hand = [difference.mean(), *intervals.t_interval(difference.to_numpy())]
row = compared[(compared["initializer"] == "he_normal") & (compared["model.depth"] == depth)].iloc[0]
names = ["difference", "difference_low", "difference_high"]
pd.DataFrame({"by hand": by_hand, "comparison.comparison": row[names].tolist()}, index=names).round(4)

# %% [markdown]
# The two columns agree. What pairing is good for is in the standard deviations:

# %%
pd.Series(
    {
        "he_normal": accuracy["he_normal"].std(),
        "glorot_uniform": accuracy["glorot_uniform"].std(),
        "difference, were they independent": np.hypot(accuracy["he_normal"].std(), accuracy["glorot_uniform"].std()),
        "difference, paired": difference.std(),
    },
    name="sd over seeds",
).to_frame().round(4)

# %% [markdown]
# A split that is hard for one arm is hard for the other, so much of what the seeds do cancels in the difference.
# Pairing is worth most where all arms learn; where chance decides whether a network gets going at all, as at depth
# 16, there is little in common to cancel.
#
# ### Many comparisons
#
# A 95 % interval misses the truth once in twenty. With as many comparisons as this study has, one such miss is to be
# expected, so p-values are adjusted for their number (Holm 1979): the smallest is multiplied by the number of
# comparisons, the next by one less, and so on.

# %%
at_depth = compared[(compared["model.depth"] == depth) & compared["difference"].notna()].set_index("initializer")
differences = accuracy.sub(accuracy["glorot_uniform"], axis="index")[at_depth.index]
alone = differences.apply(lambda column: intervals.paired_p(column.to_numpy()))
at_depth[names].assign(p_alone=alone, p_adjusted=at_depth["p"]).round(4)

# %% [markdown]
# An interval that leaves zero out and a `p_alone` below .05 are the same statement. Where `p_adjusted` is above .05
# all the same, the arm is interesting and not yet clear: the thing to do is to add seeds, not to drop the other arms
# from the table. (`p_adjusted` is over the comparisons of all depths, not only those shown.)
#
# ### The best of many
#
# Whoever picks the best of several arms picks luck too. How much? Of what a seed does to an arm, a part is the arm's
# own: the deviation of a paired difference, divided by √2, since a difference has two such parts. Four arms that are
# in truth equal, with that deviation and as many seeds, in ten thousand studies:

# %%
own = difference.std() / np.sqrt(2)
means = np.random.default_rng(0).normal(0, own, size=(10_000, 4, len(difference))).mean(axis=2)
lead = (means.max(axis=1) - means.mean(axis=1)).mean()
print(f"the best of four equal arms leads their average by {lead:.4f}")

# %% [markdown]
# A lead of that size is what no difference at all looks like. In the table, *best* is the highest mean and *tied* are
# those that the seeds do not tell from it; read both words together.
#
# ### How many seeds would tell?
#
# For four chances in five to find a difference of five points clear, a paired comparison by itself needs about (2.8 ·
# sd / .05)² seeds, and never fewer than four, since an interval from two or three is wide whatever they say:

# %%
wide = trials.assign(value=comparison.scored(trials, study.metric)).pivot(
    index="seed", columns=["model.depth", "initializer"], values="value"
)
sds = pd.Series({d: (wide[d]["he_normal"] - wide[d]["glorot_uniform"]).std() for d in study.factors["model.depth"]})
seeds = np.ceil((2.8 * sds / 0.05) ** 2).clip(lower=4).astype(int)
pd.DataFrame({"sd of the difference": sds.round(4), "seeds needed": seeds}).rename_axis("model.depth")

# %% [markdown]
# For the shallow network a handful will do. For the deepest it is cheaper to change the question than to add seeds:
# train for longer, or ask for the share of seeds that get going.
#
# ## How they get there

# %%
epochs = load.epochs("init_comparison", keys=execution.keys)
plots.curves(arms, dynamics.curves(trials, epochs, by, "val_accuracy"), "val_accuracy")

# %% [markdown]
# With two layers the curves differ in when they rise more than in where they end. With eight, those at chance are
# flat from the first epoch: nothing is slowly getting better there. With sixteen `he_normal` gets going at once, long
# before the other three that move. Who leads depends on when one looks, so the table's last rows compare how far the
# arms have got in this many epochs, and not how far they can get. The notebook `weights_through_training` shows what
# holds them up.
