"""Learning-rate schedules: functions from a step to a fraction of the optimizer's rate.

A schedule takes the steps `(n,)`, counted from 0, and the run's length in steps, and gives factors `(n,)`.
"""

import numpy as np


def constant():
    """The optimizer's own rate throughout."""
    return lambda step, steps: np.ones(len(step))


def cosine(warmup: float = 0.0, final: float = 0.0):
    """Linear warmup, then half a cosine down (Loshchilov & Hutter 2017, eq. 5 without restarts).

    Args:
        warmup: share of the run over which the rate climbs to its full value, reached at the warmup's last step.
        final: the factor at the run's end.
    """

    def factor(step, steps):
        climb = round(warmup * steps)
        progress = np.clip((step - climb) / max(1, steps - climb), 0, 1)
        descent = final + (1 - final) * (1 + np.cos(np.pi * progress)) / 2
        return np.where(step < climb, (step + 1) / max(1, climb), descent)

    return factor
