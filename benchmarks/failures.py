"""How often an arm that diverges at some seeds is called better: `python -m benchmarks.failures`, in 40 seconds.

One arm scores .95 where it finishes and .1 at the fifth of the seeds at which it diverges, so that its mean is .78; the
other scores .90 at all seeds. Every study goes through `comparison` and `answers`, as one that was trained does. The
first is called better in the studies in which it happens not to fail, .8^n of them (.33 at five seeds, .01 at twenty),
and in no other: their trials are those of an arm that never fails.
"""

import numpy as np
import pandas as pd

from analysis.estimate import comparison
from analysis.show import answers

FIRST, SECOND, FAILING, SD = 0.95, 0.90, 0.2, 0.01


def claims(studies: int, seeds: int, rng: np.random.Generator, failing: float = FAILING) -> pd.DataFrame:
    """One row a made-up study of two arms.

    Args:
        failing: how often the first arm diverges.

    Returns:
        the columns failures: at how many of the seeds it did; better, worse: whether the answer calls it so, clearly;
        led: whether the answer begins with how often the arms finish; covered: whether the t interval of the difference
        has the true one.
    """
    truth = (FIRST - SECOND) - failing * (FIRST - 0.1)
    rows = []
    for _ in range(studies):
        values = np.round(360 * rng.normal([[FIRST], [SECOND]], SD, (2, seeds))).clip(0, 360) / 360
        diverged = np.stack([rng.random(seeds) < failing, np.zeros(seeds, bool)])
        trials = pd.DataFrame(
            {
                "arm": np.repeat(["risky", "stable"], seeds),
                "seed": np.tile(range(seeds), 2),
                "val_accuracy": np.where(diverged, np.nan, np.float32(values)).ravel().astype(float),
                "status": np.where(diverged, "diverged", "finished").ravel(),
                "classes": 10,
            }
        )
        table = comparison.comparison(trials, ["arm"], "val_accuracy", {"arm": "stable"})
        said = answers.answer(table, ["arm"], "val_accuracy", {"arm": "stable"})[0]
        low, high = table.loc[0, ["difference_low", "difference_high"]]
        clear = "clearly better" in said, "clearly worse" in said
        rows.append((diverged[0].sum(), *clear, said.startswith("Trials fail at some seeds"), low <= truth <= high))
    return pd.DataFrame(rows, columns=["failures", "better", "worse", "led", "covered"])


def main() -> None:
    """Print, for several numbers of seeds, the shares of studies."""
    rng = np.random.default_rng(0)
    print("seeds  no failure seen  clearly better  of those with a failure  t interval covers")
    for seeds in (5, 10, 20):
        found = claims(1000, seeds, rng)
        seen = found[found["failures"] > 0]
        unseen = 1 - len(seen) / len(found)
        shares = (unseen, found["better"].mean(), seen["better"].mean(), found["covered"].mean())
        print(f"{seeds:5}  {shares[0]:15.3f}  {shares[1]:14.3f}  {shares[2]:23.3f}  {shares[3]:17.3f}")


if __name__ == "__main__":
    main()
