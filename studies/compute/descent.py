"""Gradient descent where its course is known: on linear regression."""

from typing import Annotated

import numpy as np

from studies.factors.limits import number, share, whole

SOLVED = 1e-6
"""Of the distance that the start has from the solution."""

HOPELESS = 1e12


def linear_regression(
    rng: np.random.Generator,
    rate: Annotated[float, number(above=0)],
    momentum: Annotated[float, share] = 0.0,
    steps: Annotated[int, whole(1)] = 5000,
) -> dict[str, float]:
    """Gradient descent on a drawn regression, J(w) = ‖Xw - y‖² / 2n, from w = 0.

    It converges if and only if its rate is below 2 / λmax(XᵀX / n), to the least-squares solution (Nesterov 2004,
    sec. 1.2.3). Heavy-ball momentum β does up to (1 + β) times that (Polyak 1964).

    Args:
        rate: the learning rate, in units of 2 / λmax.
        momentum: β.
        steps: at most; it ends before at `SOLVED`, or when it is lost.

    Returns:
        threshold: 2 / λmax; condition: λmax / λmin; distance: ‖w - w*‖ / ‖w*‖ from NumPy's least-squares solution at
        the end; excess: J(w) - J(w*) there; steps_made; converged: 1 if distance < 1e-6, else 0; agrees: 1 if that is
        what rate < 1 says, else 0.
    """
    inputs = int(rng.integers(2, 21))
    examples = int(rng.integers(4 * inputs, 20 * inputs))
    x = rng.normal(size=(examples, inputs)) * rng.uniform(0.7, 1.4, inputs)
    y = x @ rng.normal(size=inputs) + rng.normal(size=examples)
    solution = np.linalg.lstsq(x, y)[0]
    eigenvalues = np.linalg.eigvalsh(x.T @ x / examples)
    threshold = 2 / eigenvalues[-1]

    w, made = descend(x, y, rate * threshold, momentum, steps, solution)
    distance = _distance(w, solution)
    excess = (np.sum((x @ w - y) ** 2) - np.sum((x @ solution - y) ** 2)) / (2 * examples)
    converged = distance < SOLVED
    return {
        "threshold": threshold,
        "condition": eigenvalues[-1] / eigenvalues[0],
        "distance": distance,
        "excess": excess,
        "steps_made": made,
        "converged": float(converged),
        "agrees": float(converged == (rate < 1)),
    }


def descend(
    x: np.ndarray, y: np.ndarray, rate: float, momentum: float, steps: int, solution: np.ndarray
) -> tuple[np.ndarray, int]:
    """Gradient descent on ‖Xw - y‖² / 2n from w = 0, until it is at the solution, or lost, or `steps` are made.

    Args:
        x, y: `(examples, inputs)` and `(examples,)`.
        rate: the learning rate itself.
        momentum: of the heavy ball: m ← β m - η ∇J; w ← w + m.

    Returns:
        w and the steps made.
    """
    w, change, made = np.zeros(x.shape[1]), np.zeros(x.shape[1]), 0
    while made < steps and SOLVED <= _distance(w, solution) < HOPELESS:
        change = momentum * change - rate * (x.T @ (x @ w - y)) / len(x)
        w, made = w + change, made + 1
    return w, made


def _distance(w: np.ndarray, solution: np.ndarray) -> float:
    return float(np.linalg.norm(w - solution) / np.linalg.norm(solution))
