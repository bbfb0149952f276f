"""Frames in, frames out: how well what is seen of a trial early foretells how it ends.

The unit is the arm: trials of an arm differ by their seeds alone and end alike, so that a hundred trials of twenty arms
are nearer to twenty observations than to a hundred.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import load
from analysis.estimate.arms import arms_of
from analysis.estimate.comparison import scored
from analysis.estimate.intervals import LEVEL
from studies.contract import STATISTICS

OVER = ("min", "median", "max", "first", "last")
"""What a statistic of many layers is summed up by: the first layer is the one next to the input."""

CURVES = ("running_loss", "train_loss", "val_loss", "val_accuracy", "clipped", "sharpness", "noise_scale",
          "jacobian_max", "jacobian_median", "jacobian_min", "activation_slope", "gradient_slope")  # fmt: skip
"""The columns of the epochs frame that are looked at; accuracies of the same moment say the same."""

RESAMPLES = 1000
PERMUTATIONS = 1000

LEAST_ARMS = 5
"""That an interval is resampled from: 5 of 5 arms drawn with replacement are 126 different samples."""

LEAST_OF_A_KIND = 2
"""Arms with a failure, and arms without, of which there must be so many for an AUC's interval."""

SURE = 3.0
"""Standard deviations that an accuracy must be above chance, as `studies.observe.early_warnings` has it."""

KINDS = ("kernel", "output")
"""The rows of the layers frame that are looked at: tensors that end in kernel, and outputs on the probe batch."""


def ends(trials: pd.DataFrame, epochs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """How each trial ended.

    Args:
        trials, epochs: those frames.
        metric: a column of numbers of the trials.

    Returns:
        by key: value: of the metric, with failures counted, see `comparison.scored`; NaN of a crash; failed: 1 if it
        diverged or timed out, or was at chance in its last epoch: an accuracy over its steps less than `SURE` sd above
        the commonest class's share, where there are classes; else 0, NaN of a crash.
    """
    examples = epochs.groupby("key")["examples"].max().reindex(trials["key"]).to_numpy(float)
    each = np.maximum(examples / np.maximum(trials["epochs"].to_numpy(float), 1), 1)
    classes = trials["classes"].astype(float)  # 0 where there are none
    share = trials["chance_train"].astype(float).fillna(1 / classes.where(classes > 0)).to_numpy()
    accuracy = trials["running_accuracy"].to_numpy(float)
    failed = (trials["status"] != "finished") | (accuracy <= share + SURE * np.sqrt(share * (1 - share) / each))
    frame = pd.DataFrame({"value": scored(trials, metric), "failed": failed.astype(float)})
    return frame.mask(trials["status"] == "crashed").set_axis(trials["key"])


def observed(trials: pd.DataFrame, study: str, root: str | Path) -> list[int]:
    """The epochs, but for the last, at which the layers of the trial that got furthest were observed."""
    last = trials["epochs"].max()
    longest = trials["key"][trials["epochs"] == last].iloc[:1]
    return sorted(n for n in load.layers(study, root, longest, [])["epoch"].unique().tolist() if n < last)


def summaries(epochs: pd.DataFrame, layers: pd.DataFrame, epoch: int, keys: list[str]) -> pd.DataFrame:
    """What is seen of some trials at an epoch, by key: a column a number, named (of, statistic, over).

    `of` is `kernel` or `output`, over whose layers a statistic is summed up by each of `OVER`, or `network`. What is
    nowhere observed, or the same everywhere, is left out.
    """
    now = epochs[epochs["epoch"] == epoch].set_index("key")
    parts = [now[[name for name in CURVES if name in now]].set_axis(
        [("network", name, "") for name in CURVES if name in now], axis=1)]  # fmt: skip
    rows = layers[layers["epoch"] == epoch]
    names, tensor = [name for name in STATISTICS if name in rows], rows["tensor"].astype(str)
    for kind in KINDS:
        some = rows[tensor.str.endswith("kernel") if kind == "kernel" else tensor == kind]
        groups = some.groupby("key", sort=False, observed=True)[names]
        for over in OVER:
            if over in ("first", "last"):  # a group's own skip what is missing
                part = some.drop_duplicates("key", keep=over).set_index("key")[names]
            else:
                part = getattr(groups, over)()
            parts.append(part.set_axis([(kind, name, over) for name in names], axis=1))
    wide = pd.concat([part.reindex(keys) for part in parts], axis=1).astype(float)
    return wide.loc[:, [len(np.unique(column[~np.isnan(column)])) > 1 for column in wide.to_numpy().T]]


def foretold(
    trials: pd.DataFrame,
    epochs: pd.DataFrame,
    layers: pd.DataFrame,
    by: list[str],
    metric: str,
    at: Iterable[int],
    rng: np.random.Generator,
    most: int | None = None,
) -> pd.DataFrame:
    """How well each statistic at some epochs foretells the metric's end value and failure, the strongest first.

    Of the summaries over layers the one that foretells best stands for its statistic. Trials that had ended by an epoch
    are not counted at it: nothing was left to foretell.

    Args:
        trials, epochs, layers: those frames.
        by: the factors that make the arms.
        metric: a column of numbers of the trials.
        at: the epochs.
        rng: draws arms.
        most: so many rows an epoch are given; None for all.

    Returns:
        a row a statistic, epoch after epoch: epoch, of, statistic, over, see `summaries`; trials, arms: that have it;
        failures, failed_arms: trials of these that failed, see `ends`, and arms with such a one; rho: Spearman's rank
        correlation with the end value; auc: the probability that of a failed trial and another the failed one has the
        greater value, ties being halves, which is 1/2 if it says nothing; each with an interval, _low and _high, see
        `Data.resampled`, and _p, see `Data.chances`; NaN where it does not exist.
    """
    found, parts, at = ends(trials, epochs, metric), [], list(at)
    arm = pd.Series(arms_of(trials, by)[0], trials["key"])
    for epoch in at:
        keys = _left(trials, found, epoch)
        wide, ended = summaries(epochs, layers, epoch, keys), found.loc[keys]
        data = Data(wide.to_numpy(float), ended["value"].to_numpy(), ended["failed"].to_numpy(), arm[keys].to_numpy())
        frame = pd.DataFrame(list(wide), columns=["of", "statistic", "over"])
        frame.insert(0, "epoch", epoch)
        parts.append((frame.assign(**data.points(), **data.chances(rng, len(at))), data))
    return _strongest(parts, rng, most)


def counts(trials: pd.DataFrame, epochs: pd.DataFrame, by: list[str], metric: str, at: Iterable[int]) -> pd.DataFrame:
    """What there was to foretell at each epoch.

    Returns:
        epoch; trials, arms: that had not ended; failures, failed_arms: trials of them that failed, see `ends`, and
        arms with such a one; sure: arms all of whose trials failed; ended: trials that had ended; crashed: trials
        without an end.
    """
    found, rows = ends(trials, epochs, metric), []
    arm = pd.Series(arms_of(trials, by)[0], trials["key"])
    crashed = int((trials["status"] == "crashed").sum())
    for epoch in at:
        keys = _left(trials, found, epoch)
        failed = found["failed"][keys] == 1
        all_failed = failed.groupby(arm[keys].to_numpy()).all()
        arms = arm[keys].nunique(), arm[keys][failed].nunique(), int(all_failed.sum())
        ended = int((trials["epochs"][(trials["status"] != "crashed").to_numpy()] <= epoch).sum())
        rows.append((epoch, len(keys), arms[0], int(failed.sum()), *arms[1:], ended, crashed))
    names = ["epoch", "trials", "arms", "failures", "failed_arms", "sure", "ended", "crashed"]
    return pd.DataFrame(rows, columns=names)


def _left(trials, found, epoch) -> list[str]:
    """The trials that have an end, and had not come to it."""
    return list(trials["key"][(trials["epochs"] > epoch).to_numpy() & found["value"].notna().to_numpy()])


def _strongest(parts, rng, most) -> pd.DataFrame:
    """The best row of each statistic at each epoch, with its interval."""
    frames = [frame.assign(part=n, column=range(len(frame))) for n, (frame, _) in enumerate(parts)]
    whole = pd.concat(frames, ignore_index=True)
    streams = rng.spawn(len(whole))  # a row's interval is the same however many are shown
    strength = np.fmax(whole["rho"].abs(), 2 * (whole["auc"] - 0.5).abs()).fillna(-1)
    whole = whole.assign(strength=-strength).sort_values(["part", "strength"], kind="stable")
    whole = whole[whole["strength"] <= 0].drop_duplicates(["epoch", "of", "statistic"])
    whole = whole if most is None else whole.groupby("part").head(most)
    places = zip(whole.index, whole["part"], whole["column"], strict=True)
    intervals = [parts[part][1].resampled(column, streams[row]) for row, part, column in places]
    ends = pd.DataFrame(intervals, columns=["rho_low", "rho_high", "auc_low", "auc_high"], index=whole.index)
    names = ("rho", "rho_low", "rho_high", "rho_p", "auc", "auc_low", "auc_high", "auc_p")
    heads = ("epoch", "of", "statistic", "over", "trials", "arms", "failures", "failed_arms")
    whole = pd.concat([whole, ends], axis=1)
    return whole[[*heads, *names]].reset_index(drop=True)


class Data:
    """What is seen of trials and how they ended, as arrays.

    Args:
        seen: `(trials, columns)`, NaN where missing.
        value: the end value, `(trials,)`.
        failed: 0 or 1, `(trials,)`.
        arm: a number, `(trials,)`.
    """

    def __init__(self, seen: np.ndarray, value: np.ndarray, failed: np.ndarray, arm: np.ndarray):
        self.seen, self.value, self.failed = seen, value, failed
        self.arm = np.unique(arm, return_inverse=True)[1]
        self.arms = self.arm.max(initial=-1) + 1

    def patterns(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The columns that are there for the same trials, and these: pairs of places."""
        there = ~np.isnan(self.seen)
        kinds, place = np.unique(there, axis=1, return_inverse=True)
        return [(np.flatnonzero(place.ravel() == n), np.flatnonzero(kinds[:, n])) for n in range(kinds.shape[1])]

    def points(self) -> dict[str, np.ndarray]:
        """Of each column its counts, `rho` and `auc`."""
        counts = {name: np.zeros(self.seen.shape[1], int) for name in ("trials", "arms", "failures", "failed_arms")}
        strengths = {name: np.full(self.seen.shape[1], np.nan) for name in ("rho", "auc")}
        for columns, rows in self.patterns():
            failed = self.failed[rows] == 1
            counts["trials"][columns], counts["failures"][columns] = len(rows), failed.sum()
            counts["arms"][columns] = len(np.unique(self.arm[rows]))
            counts["failed_arms"][columns] = len(np.unique(self.arm[rows][failed]))
            ranks = midranks(self.seen[np.ix_(rows, columns)].T)
            strengths["rho"][columns] = correlations(ranks, midranks(self.value[rows]))[:, 0]
            strengths["auc"][columns] = areas(ranks, failed[None])[:, 0]
        return counts | strengths

    def chances(self, rng: np.random.Generator, families: int = 1) -> dict[str, np.ndarray]:
        """The p of each column's `rho` and `auc`, adjusted for there being so many columns.

        How often the strongest of all the columns is as strong as this one when arms are given the ends of other arms,
        drawn among those with as many trials: the max-T permutation test (Westfall & Young 1993), which knows that many
        columns say the same. Each is p for all columns together, so that of studies in which nothing foretells anything
        one in twenty has any below .05.

        Args:
            families: of so many such tests together; p is multiplied by it (Bonferroni).
        """
        drawn = _exchanged(self.arm, rng, PERMUTATIONS)
        greatest = {name: np.zeros(PERMUTATIONS) for name in ("rho", "auc")}
        strength = {name: np.full(self.seen.shape[1], np.nan) for name in greatest}
        for columns, rows in self.patterns():
            ranks = midranks(self.seen[np.ix_(rows, columns)].T)
            places = np.vstack([rows, drawn[:, rows]])
            tables = {"rho": correlations(ranks, midranks(self.value[places]))}
            tables["auc"] = areas(ranks, self.failed[places] == 1) - 0.5
            for name, table in tables.items():
                table = np.abs(table)
                strength[name][columns] = table[:, 0]
                if len(columns):
                    greatest[name] = np.fmax(greatest[name], np.nan_to_num(table[:, 1:]).max(axis=0))
        p = {}
        for name in greatest:
            above = (greatest[name] >= strength[name][:, None] - 1e-9).sum(axis=1)
            p[f"{name}_p"] = np.where(np.isnan(strength[name]), np.nan, (1 + above) / (1 + PERMUTATIONS))
        return {name: np.minimum(families * values, 1) for name, values in p.items()}

    def resampled(self, column: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
        """The intervals of a column's `rho` and `auc`: low, high, low, high; NaN where there is none.

        Arms are drawn with replacement, each with all its trials (the cluster bootstrap, Davison & Hinkley 1997, 3.8),
        and the percentiles are taken. None from fewer than `LEAST_ARMS` arms, nor of an AUC from fewer than
        `LEAST_OF_A_KIND` arms with a failure or without one. Where every sample has an AUC of 0 or 1, after perfect
        separation, resampling knows no spread: then it is `separated`.

        Of copies in 8 and 24 arms whose ends are correlated by 0, .6 and .9 the first covers in 94 to 97 % of samples,
        and the second in 89 to 100 % (simulated); resampling trials covers in 60 to 66 %.
        """
        rows = np.flatnonzero(~np.isnan(self.seen[:, column]))
        arm, failed = np.unique(self.arm[rows], return_inverse=True)[1], self.failed[rows] == 1
        arms = arm.max(initial=-1) + 1
        if arms < LEAST_ARMS:
            return (np.nan,) * 4
        drawn = rng.multinomial(arms, np.full(arms, 1 / arms), RESAMPLES).astype(float)
        seen, member = self.seen[rows, column], np.eye(arms)[arm]
        rho = _rhos(drawn, arm, below(seen, seen, arm, arms), below(self.value[rows], self.value[rows], arm, arms))
        # Of the failed trials of an arm, row, how many trials of another, column, that did not fail are below.
        pairs = (below(seen[~failed], seen[failed], arm[~failed], arms) @ member[failed]).T
        sizes = (drawn @ member[failed].sum(axis=0)) * (drawn @ member[~failed].sum(axis=0))
        with np.errstate(invalid="ignore"):
            auc = np.where(sizes > 0, ((drawn @ pairs) * drawn).sum(axis=1) / sizes, np.nan)
        kinds = len(np.unique(arm[failed])), len(np.unique(arm[~failed]))
        if min(kinds) < LEAST_OF_A_KIND:
            return (*_percentiles(rho), np.nan, np.nan)
        low, high = _percentiles(auc)
        return (*_percentiles(rho), *(separated(low, *kinds) if low == high and low in (0, 1) else (low, high)))


def midranks(values: np.ndarray) -> np.ndarray:
    """Ranks along the last axis, `(..., n)`, from 1; of equal values their mean."""
    values = np.atleast_2d(values)
    order = np.argsort(values, axis=-1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=-1)
    n, place = values.shape[-1], np.arange(values.shape[-1])
    new = np.ones(values.shape, bool)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    first = np.maximum.accumulate(np.where(new, place, 0), axis=-1)
    final = np.ones(values.shape, bool)
    final[..., :-1] = new[..., 1:]
    last = np.minimum.accumulate(np.where(final, place, n)[..., ::-1], axis=-1)[..., ::-1]
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=-1)
    return ranks


def correlations(ranks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each row of `(j, n)` with each of `(k, n)`, `(j, k)`; NaN where one has no spread."""
    centred = [part - part.mean(axis=1, keepdims=True) for part in (ranks, others)]
    norms = [np.sqrt(np.square(part).sum(axis=1)) for part in centred]
    with np.errstate(invalid="ignore", divide="ignore"):
        return centred[0] @ centred[1].T / np.outer(*norms)


def areas(ranks: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """The AUC of each row of ranks `(j, n)` for each row of `failed` `(k, n)`, `(j, k)`; NaN where one kind is missing.

    By the rank sum of the failed ones (Mann & Whitney 1947).
    """
    some = failed.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (ranks @ failed.T.astype(float) - some * (some + 1) / 2) / (some * (failed.shape[1] - some))


def separated(auc: float, failed: int, others: int) -> tuple[float, float]:
    """An interval for an AUC that is 0 or 1, of so many independent arms of each kind.

    Hanley & McNeil's variance at the bound itself, not at the estimate, where it is zero (Newcombe 2006, method 5).
    """
    mean = (failed + others) / 2
    theta = np.linspace(0.5, 1, 50_001)
    odds = (mean - 1) * ((1 - theta) / (2 - theta) + theta / (1 + theta))
    sd = np.sqrt(theta * (1 - theta) * (1 + odds) / (failed * others))
    bound = float(theta[np.argmax(1 - theta <= NORMAL * sd)])
    return (bound, 1.0) if auc > 0.5 else (0.0, 1 - bound)


NORMAL = 1.959964
"""The normal distribution's quantile for `LEVEL`."""


def below(values: np.ndarray, than: np.ndarray, arm: np.ndarray, arms: int) -> np.ndarray:
    """How many of each arm's values are below each of others, `(arms, others)`; equal ones are halves."""
    parts = [np.sort(values[arm == n]) for n in range(arms)]
    return np.array([(part.searchsorted(than) + part.searchsorted(than, "right")) / 2 for part in parts])


def _rhos(drawn: np.ndarray, arm: np.ndarray, *counts: np.ndarray) -> np.ndarray:
    """Spearman's correlation of two quantities in each sample of arms.

    Args:
        drawn: how often each arm is in each sample, `(samples, arms)`.
        arm: each trial's, `(trials,)`.
        counts: of each quantity how many trials of each arm are below each trial, `(arms, trials)`: weighted by how
            often the arm was drawn and summed up they are the trial's rank, less a half.
    """
    weight = drawn[:, arm]
    middle = weight.sum(axis=1, keepdims=True) / 2
    x, y = (drawn @ table - middle for table in counts)
    products = [np.einsum("bn,bn,bn->b", weight, *pair) for pair in ((x, y), (x, x), (y, y))]
    with np.errstate(invalid="ignore", divide="ignore"):
        return products[0] / np.sqrt(products[1] * products[2])


def _exchanged(arm: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """For each trial the one whose end it is given, `(count, trials)`: arms of as many trials change places."""
    places = [np.flatnonzero(arm == n) for n in range(arm.max(initial=-1) + 1)]
    drawn = np.tile(np.arange(len(arm)), (count, 1))
    for size in {len(some) for some in places}:
        block = np.array([some for some in places if len(some) == size])
        order = rng.permuted(np.tile(np.arange(len(block)), (count, 1)), axis=1)
        drawn[:, block.ravel()] = block[order].reshape(count, -1)
    return drawn


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    """The middle `LEVEL` of what there is."""
    there = values[~np.isnan(values)]
    if not len(there):
        return np.nan, np.nan
    low, high = np.quantile(there, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
