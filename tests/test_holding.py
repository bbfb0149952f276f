"""Which levels hold whatever the other factors are: cases whose answer is plain."""

import numpy as np
import pandas as pd

from analysis.estimate import comparison
from analysis.show import answers, holding

RISE = np.array([0.02, -0.01, 0.02, -0.01, 0.01])
GOOD, POOR, CHANCE = 0.9 + RISE / 10, 0.6 + RISE, np.full(5, 0.1)
LOST = np.full(5, np.nan)


def held(arms, factors=("initializer", "model.depth"), metric="val_accuracy", contexts=None):
    """Of (level, context, ...) -> values over the seeds, NaN where a trial diverged."""
    rows = [(*arm, seed, value) for arm, several in arms.items() for seed, value in enumerate(several)]
    frame = pd.DataFrame(rows, columns=[*factors, "seed", metric])
    frame = frame.assign(status=np.where(frame[metric].isna(), "diverged", "finished"), classes=10)
    anchor, others = factors[:1], list(contexts or factors[1:])
    compared = comparison.comparison(frame, list(factors), metric, {anchor[0]: "a"})
    return holding.held(compared, list(anchor), others, metric)


def test_where_each_level_breaks_is_said_by_how():
    arms = {}
    for depth, (b, c, d) in {2: (POOR, GOOD, GOOD), 8: (CHANCE, LOST, GOOD), 16: (CHANCE, LOST, CHANCE)}.items():
        arms |= {("a", depth): GOOD + RISE / 20, ("b", depth): b, ("c", depth): c, ("d", depth): d}
    assert held(arms) == [
        "a is best, or cannot be told from the best, at every depth (2, 8, 16).",
        "The others fall short: b behind the best at depth=2 and at chance from depth=8 on; c with no trial that "
        "finishes from depth=8 on; d at chance at depth=16.",
    ]


def test_seeds_that_fail_and_levels_that_break_alike():
    once = GOOD.copy()
    once[3] = np.nan
    arms = {}
    for depth in (8, 2):  # in the order of the numbers, not of the rows
        arms |= {(name, depth): GOOD + RISE / 30 for name in "ae"}
        arms |= {("b", depth): CHANCE, ("c", depth): CHANCE, ("d", depth): once if depth == 8 else GOOD}
    first, others = held(arms)
    assert first == "a and e are best, or cannot be told from the best, at every depth (2, 8)."
    assert others == "The others fall short: b and c at chance everywhere; d with 1 of 5 seeds failing at depth=8."


def test_none_may_hold():
    swapped = {("a", 1): GOOD, ("b", 1): POOR, ("a", 2): POOR, ("b", 2): GOOD}
    assert held(swapped)[0] == "No initializer is best, or tied with the best, at every depth (1, 2)."
    dead = {(name, depth): CHANCE + RISE / 100 for name in "ab" for depth in (1, 2)}
    assert held(dead)[1] == "Each falls short: a and b at chance everywhere."


def test_of_a_level_that_was_not_tried_everywhere_no_more_is_said_than_was_seen():
    arms = {(name, depth): GOOD + RISE / 20 if name == "a" else POOR for name in "ac" for depth in (2, 8, 16)}
    arms |= {("b", 2): GOOD, ("d", 2): POOR, ("d", 8): POOR}
    assert held(arms) == [
        "a is best, or cannot be told from the best, at every depth (2, 8, 16).",
        "Not tried everywhere, and best or tied where they were: b (depth=2).",
        "The others fall short: c behind the best everywhere; d behind the best at depth=2 and depth=8.",
    ]


def test_a_loss_is_at_chance_where_it_is_that_of_the_uniform_guess():
    losses = {("a", 1): 0.2 + RISE, ("a", 2): 0.2 + RISE, ("b", 1): 2.3 + RISE / 2, ("b", 2): 0.9 + RISE / 2}
    assert held(losses, metric="val_loss")[1].endswith("b at chance at depth=1 and behind the best at depth=2.")


def test_several_other_factors_are_combined_and_what_cannot_be_told_is_not_said():
    arms = {
        (name, m, n): (POOR if name == "b" and m != n else GOOD) + RISE / 50 * (name == "b")
        for name in "ab"
        for m in (1, 2)
        for n in (1, 2)
    }
    first, second = held(arms, ("initializer", "model.depth", "batch"))
    assert first.startswith("a is best") and first.endswith("at all 4 combinations of depth and batch.")
    assert second == "The others fall short: b behind the best at depth=1 batch=2 and depth=2 batch=1."
    assert held({arm: values[:2] for arm, values in arms.items()}, ("initializer", "model.depth", "batch")) == []
    assert held({("a", 1): GOOD, ("b", 1): POOR}) == []
    norms = {("a", 1): GOOD, ("b", 1): POOR, ("a", 2): GOOD, ("b", 2): POOR}
    assert held(norms, metric="dense_kernel_l2") == []


def test_tied_with_the_best_and_clearly_worse_than_the_baseline_is_explained():
    noise = np.random.default_rng(0).normal(0, 0.02, (12, 5))
    base = GOOD + 0.05
    values = {"a": base, "b": base - 0.03 + RISE} | {f"x{n}": 0.7 + each for n, each in enumerate(noise)}
    rows = [(name, seed, value) for name, several in values.items() for seed, value in enumerate(several)]
    frame = pd.DataFrame(rows, columns=["initializer", "seed", "val_accuracy"]).assign(status="finished", classes=10)
    compared = comparison.comparison(frame, ["initializer"], "val_accuracy", {"initializer": "a"})
    row = compared.set_index("initializer").loc["b"]
    lines = answers.answer(compared, ["initializer"], "val_accuracy", {"initializer": "a"})
    assert row["standing"] == "tied" and row["p"] <= 0.05
    assert sum(line.startswith("b is tied with the best and yet clearly worse than a") for line in lines) == 1


def test_a_baseline_behind_the_best_where_nothing_is_clearly_better_is_explained():
    """Three pairs of two arms are fewer tests than eleven arms against the baseline."""
    gain = np.array([0.01, 0.03, 0.02, 0.05, 0.03])
    values = {("a", 1): GOOD - 0.1, ("b", 1): GOOD - 0.1 + gain}
    values |= {(name, depth): GOOD + RISE[::-1] / 5 * (name == "b") for name in "ab" for depth in range(2, 12)}
    rows = [(*arm, seed, value) for arm, several in values.items() for seed, value in enumerate(several)]
    by = ["initializer", "model.depth"]
    frame = pd.DataFrame(rows, columns=[*by, "seed", "val_accuracy"]).assign(status="finished", classes=10)
    compared = comparison.comparison(frame, by, "val_accuracy", {"initializer": "a"})
    assert compared["standing"][0] == "worse" and compared["p"][1] > 0.05
    lines = answers.answer(compared, by, "val_accuracy", {"initializer": "a"})
    assert sum(line.startswith("a is worse than the best at depth=1 and yet nothing is") for line in lines) == 1
    alone = comparison.comparison(frame[frame["model.depth"] == 1], by, "val_accuracy", {"initializer": "a"})
    assert not any("and yet" in line for line in answers.answer(alone, by, "val_accuracy", {"initializer": "a"}))
