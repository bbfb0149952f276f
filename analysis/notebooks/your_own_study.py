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
# # Your own study: from a sentence to an answer
#
# "Dropout helps when there is little data." Everybody has heard it. This notebook makes a study of it, from the
# command line alone: it takes seconds, and no file is written into the project.
#
# ## The sentence as a design
#
# | in the sentence | in the study |
# |---|---|
# | *dropout* | the factor `model.dropout`, with the levels 0 and .5 |
# | *when there is little data* | a second factor, `data.train_size`, since "when" is a comparison too |
# | *helps* | the metric, `val_accuracy`, against the baseline `model.dropout=0` |
#
# Any setting that `python -m studies.run --help` lists can be a factor. Everything else keeps its default, or what
# the command sets, for all arms alike.

# %%
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

os.chdir(next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "pyproject.toml").exists()))

from analysis import load
from analysis.estimate import comparison, dynamics
from analysis.show import answers, plots

folder = tempfile.TemporaryDirectory()
store = Path(folder.name) / "store"


def run(*overrides):
    """Print what `python -m studies.run` says, but for the progress and the places of the results."""
    command = [sys.executable, "-m", "studies.run", *overrides, f"tracking.root={store}"]
    plain = os.environ | {"TTY_COMPATIBLE": "0"}  # Jupyter asks for colours
    done = subprocess.run(command, capture_output=True, text=True, env=plain)
    if done.returncode:
        raise RuntimeError(done.stderr)
    said = done.stdout.partition("\nresults ")[0].splitlines()
    print("\n".join(line for line in said if not line.startswith(("[", "…")) and folder.name not in line))


# %% [markdown]
# `run` is the command `python -m studies.run` with a store of its own, which goes when this notebook ends. Without
# `tracking.root` the trials are kept in `mlruns/`.
#
# ## Running it

# %%
design = [
    "+study.factors={data.train_size: [100, 400], model.dropout: [0, 0.5]}",
    "+study.baseline={model.dropout: 0}",
    "study.name=dropout",
    "study.question=Does dropout help when there is little data?",
    "optimizer=momentum",
]
run(*design, "study.seeds=3")

# %% [markdown]
# Two sizes, two levels of dropout and three seeds are twelve trials. Each level is compared with the baseline at the
# same size and seed: same images, same initial weights. In a shell, each of the strings above goes in quotes;
# `plan=true` beside them lists the trials, and says how long they take, without training any.
#
# ## Reading it


# %%
def read():
    """The study, its trials, and their comparison, as the store has them by now."""
    study, trials = load.execution("dropout", store).study, load.trials("dropout", store)
    return study, trials, comparison.comparison(trials, list(study.factors), study.metric, study.baseline)


study, trials, compared = read()
arms = plots.Arms(compared, colour=["model.dropout"], panels=["data.train_size"])
plots.comparison(arms, compared, comparison.by_seed(trials, arms.by, study.metric), study.metric)

# %%
for line in answers.answer(compared, list(study.factors), study.metric, study.baseline):
    print(textwrap.fill(line, 100), end="\n\n")

# %% [markdown]
# With three seeds the intervals are wide: Student's t for three is more than twice that for many. The sentence says
# that at the smaller size the difference is above zero. Nothing here says so; but then, three seeds can say little.
#
# ## More seeds
#
# The same command with more seeds trains the new ones only: a finished trial is found by its key, a hash of all that
# can change its numbers.

# %%
run(*design, "study.seeds=8")

# %%
study, trials, compared = read()
plots.comparison(arms, compared, comparison.by_seed(trials, arms.by, study.metric), study.metric)

# %%
for line in answers.answer(compared, list(study.factors), study.metric, study.baseline):
    print(textwrap.fill(line, 100), end="\n\n")

# %% [markdown]
# The intervals of the differences are narrower now, by the root of the number of seeds and once more by Student's t,
# which is about half as large for eight as for three. The answer to the sentence is *no*: not on these images, with
# this network and in this many epochs. With little data, to switch off half of the units costs accuracy.
#
# One caution. This is a second look, and whoever adds seeds until something is clear will find it: the p values are
# those of a single look. What the command prints says *Looked at before: with 3 seeds*; had the number of seeds been
# settled before the first trial, there would be no such line.
#
# ## Why, and what one may not conclude

# %%
epochs = load.epochs("dropout", store)
plots.curves(arms, dynamics.curves(trials, epochs, arms.by, study.metric), study.metric)

# %% [markdown]
# At the smaller size both curves are still rising when training ends, and the one with dropout is behind. An epoch of
# a hundred images is three batches of 32, so these arms had few steps, and dropout makes each of them noisier. What
# was shown is that dropout *slows* this network down; that it would not help one trained to the end was not. That is
# another study, one setting away: `training.epochs=200`.
#
# ## The page
#
# Every run ends by writing a report, a page that needs nothing else: the answer, the table, figures like these, the
# weights by layer and epoch, the failures, and the command that makes the same numbers again. The line `report` at
# the end of what the command prints says where it is.
#
# A study that you want to keep goes into a file, `conf/study/NAME.yaml`, with the question, its cost and what you
# expect at its head. Those that are there already are patterns for it.
