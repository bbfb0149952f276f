"""What foretells a trial's end, as a table and in words. Computes no statistic."""

import pandas as pd

from analysis.estimate.foretell import LEAST_ARMS, LEAST_OF_A_KIND, PERMUTATIONS, RESAMPLES
from analysis.show.tables import PLAIN, STYLES, interval, rounded, words
from analysis.show.width import fitted

MOST = 8
"""Rows an epoch."""

SEED = 0
"""Of the arms that are drawn: the same study gives the same intervals."""

LEAST_P = 1e-3
"""Smaller ones are shown as less than it."""


def foretell_table(foretold: pd.DataFrame, metric: str, format: str = "terminal", width: int | None = None) -> str:
    """What `foretell.foretold` found, as text: an epoch and statistic a row; CSV and JSON have every number in full.

    Of an AUC below one half, where low values foretell failure, the complement is shown.

    Args:
        width: of the terminal that it is for; None for as wide as it is.
    """
    if format in PLAIN:
        return PLAIN[format](foretold)
    failures = bool(foretold["auc"].notna().any())
    headers = ["epoch", "statistic", "rank correlation", "95 % interval", "p"]
    rows = []
    for row in foretold.to_dict("records"):
        rho = "–" if row["rho"] != row["rho"] else f"{row['rho']:+.2f}"
        cells = [str(row["epoch"]), name(row), rho]
        cells += [interval(row["rho"], row["rho_low"], row["rho_high"], sign=True), _p(row["rho_p"])]
        rows.append(cells + (_failing(row) if failures else []))
    headers += ["fails if", "AUC", "95 % interval", "p"] * failures
    return fitted(rows, headers, STYLES[format], width=width, spare=(7, 3, 8) if failures else (3,))


def _failing(row) -> list[str]:
    """Failure's cells, so turned that the AUC is one half at least."""
    value, ends = row["auc"], (row["auc_low"], row["auc_high"])
    if value != value:
        return ["", "–", "–", "–"]
    if low := value < 0.5:
        value, ends = 1 - value, (1 - ends[1], 1 - ends[0])
    return ["low" if low else "high", f"{value:.3f}", interval(value, *ends), _p(row["auc_p"])]


def name(row) -> str:
    """A statistic as a reader sees it: `kernel gradient_norm, min`."""
    of = "" if row["of"] == "network" else f"{row['of']} "
    return f"{of}{row['statistic']}{', ' * bool(row['over'])}{row['over']}"


def foretell_words(foretold: pd.DataFrame, counts: pd.DataFrame, metric: str) -> list[str]:
    """What was foretold of how many, and how sure that is.

    Args:
        foretold, counts: from `analysis.estimate.foretell`.
    """
    lines = [_counted(row) for row in counts.to_dict("records")]
    failures, others = counts["failures"], counts["trials"] - counts["failures"]
    if foretold.empty:
        lines.append("They all end alike, or nothing that was observed differs between them.")
    elif counts["arms"].max() < LEAST_ARMS:
        lines.append(f"No intervals: they are by resampling arms, of which it takes {LEAST_ARMS} at least.")
    elif not (failures.any() and others.any()):
        lines.append(f"{'None' if others.any() else 'Every one'} of them failed, so that there is no AUC.")
    elif foretold["auc_low"].isna().all():
        lines.append(
            f"No interval of an AUC: it takes {LEAST_OF_A_KIND} arms with a failure, and {LEAST_OF_A_KIND} without."
        )
    return [
        *lines,
        f"Rank correlation (Spearman) with the {words(metric)} that a trial comes to, failures counted. AUC: of a "
        f"trial that fails and one that does not, how often the statistic tells which; .5 is a guess. Of the summaries "
        f"over layers (min, median, max, first, last) the best is shown.",
        f"95 % intervals: arms are resampled {RESAMPLES:,} times, with all their trials; each is of its row alone. p "
        f"is of all statistics and epochs together, by exchanging the ends of arms {PERMUTATIONS:,} times (max-T), "
        f"for the best of many is chosen for its luck too.",
        "What differs between arms because a factor sets it foretells no more than the factor does: other factors may "
        "have other signs.",
    ]


def _counted(row) -> str:
    left = f"{row['trials']} trials of {row['arms']} arm{'s' * (row['arms'] != 1)} had not ended"
    sure = f" (in {row['sure']} at every seed)" * bool(row["sure"])
    failed = f"{row['failures']} of them, in {row['failed_arms']} arm{'s' * (row['failed_arms'] != 1)}{sure}, failed"
    gone = f"; {row['ended']} had, and do not count" * bool(row["ended"])
    crashed = f"; {row['crashed']} crashed, and have no end" * bool(row["crashed"])
    said = failed if row["failures"] else "none of them failed"
    return f"Epoch {row['epoch']}: {left}, and {said} (diverged, timed out or ended at chance){gone}{crashed}."


def _p(value: float) -> str:
    return "–" if value != value else f"<{LEAST_P:g}" if value < LEAST_P else rounded(value, value)
