"""Spectra of kernels as matrices: a function each, one table of them.

A kernel is the matrix that takes a layer's inputs to its outputs: dense kernels as they are, `(in, out)`; convolutions
as (kh · kw · cin, cout), of grouped ones with the channels of a group; depthwise ones as (kh · kw, cin · multiplier), a
filter a column; an attention's query, key and value, `(width, heads, size)`, as (width, heads · size), and its output's
`(heads, size, width)` as (heads · size, width); embeddings as (words, width); recurrent kernels whole and gate by gate.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

STEPS = 8
"""Of a bidiagonalization, from where the last observation ended: as near as some dozens of power iterations."""

MOST_RESTARTS = 10
RESIDUAL = 1e-3
"""It begins anew from where it ended until ‖Wᵀu − σv‖ is no more than this share of σ, which is off by its square."""

SMALL = 32
"""Rows or columns, up to which all eigenvalues take no longer."""

LEAST_EIGENVALUES = 50
"""To fit a power law to (Clauset et al. 2009, section 3.3, on small samples)."""

LEAST_TAIL = 10
"""Eigenvalues in the tail that it is fitted to."""


@dataclass(frozen=True)
class Layout:
    """How a kernel is laid out as a matrix.

    Attributes:
        shape: the kernel's.
        order: its axes, those of the inputs first.
        inputs: how many of them are.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    inputs: int

    @property
    def columns(self) -> int:
        """The matrix's outputs."""
        return math.prod(self.shape[axis] for axis in self.order[self.inputs :])

    def matrix(self, entries: np.ndarray) -> np.ndarray:
        """Entries in the kernel's own order as the matrix `(in, out)`."""
        kernel = entries.reshape(self.shape).transpose(self.order)
        return kernel.reshape(math.prod(kernel.shape[: self.inputs]), -1)


def layout(shape: tuple[int, ...], layer: Any = None, tensor: str = "kernel") -> Layout | None:
    """How a tensor of a layer is laid out as a matrix; None if it has one axis or none, or no entries.

    Args:
        layer: a Keras layer; its kind tells what is not by the shape.
    """
    axes, kind = tuple(range(len(shape))), type(layer).__name__
    if len(shape) < 2 or not math.prod(shape):
        return None
    if equation := getattr(layer, "equation", None):  # EinsumDense, of which attention is made: "abc,cde->abde"
        _, kernel, outputs = equation.replace("->", ",").split(",")
        order = sorted(axes, key=lambda axis: kernel[axis] in outputs)
        if len(kernel) == len(shape):
            return Layout(shape, tuple(order), sum(name not in outputs for name in kernel))
    if len(shape) > 2 and (kind.startswith("Depthwise") or tensor == "depthwise_kernel"):
        return Layout(shape, axes, len(shape) - 2)
    return Layout(shape, axes, len(shape) - 1)


@functools.cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()


def one_thread():
    """A context in which NumPy multiplies in one thread: sums come out the same wherever a trial runs."""
    return _threads().limit(limits=1, user_api="blas")


def largest(matrix: np.ndarray, vector: np.ndarray) -> tuple[float, np.ndarray]:
    """The greatest singular value, from below, and its right singular vector.

    By Golub and Kahan's bidiagonalization, restarted (Golub & Van Loan 2013, section 10.4.4): each step multiplies with
    the matrix and with its transpose, as a power iteration does, and what the steps span together is much nearer.

    It may be the next singular value where `vector` has hardly any of the first's vector and the two are within some
    percent of one another: begin with random numbers in it.

    Args:
        matrix: `(m, n)`, entries of the size of 1.
        vector: `(n,)`, where to begin: that of the last observation, or random numbers.
    """
    found = 0.0
    for _ in range(MOST_RESTARTS):
        found, vector, residual = _restart(matrix, vector)
        if residual <= RESIDUAL * found:
            break
    return found, vector


def _restart(matrix, vector):
    """The same from some steps alone, and ‖Wᵀu − σv‖."""
    right = vector / math.sqrt(vector @ vector)
    rights, alphas, betas, left = [], [], [], 0.0
    for _ in range(min(STEPS, max(matrix.shape))):
        rights.append(right)
        left = matrix @ right - (betas[-1] * left if betas else 0.0)
        alphas.append(alpha := math.sqrt(left @ left))
        if not alpha > 1e-6 * alphas[0]:
            break
        left /= alpha
        right = left @ matrix - alpha * right
        betas.append(beta := math.sqrt(right @ right))
        if not beta > 1e-6 * alphas[0]:
            break
        right /= beta
    small = np.diag(alphas) + np.diag(betas[: len(alphas) - 1], 1)
    lefts, values, turned = np.linalg.svd(small)
    residual = betas[-1] * abs(lefts[-1, 0]) if len(betas) == len(alphas) else 0.0
    return float(values[0]), turned[0].astype(matrix.dtype) @ np.stack(rights), residual


def singular_values(matrix: np.ndarray) -> np.ndarray:
    """All of them, `(min(m, n),)`, rising; NaN where they cannot be had.

    As roots of the eigenvalues of the smaller of WWᵀ and WᵀW, in double precision: to 1e-8 of the greatest, less than
    what single-precision entries are rounded by. Those below their rounding are zeros.
    """
    try:
        squares = np.linalg.eigvalsh(_products(matrix))
    except np.linalg.LinAlgError:
        return np.full(min(matrix.shape), np.nan)
    values = np.sqrt(np.maximum(squares, 0))
    return np.where(values > values[-1] * max(matrix.shape) * np.finfo(np.float32).eps, values, 0.0)


def _products(matrix: np.ndarray) -> np.ndarray:
    """The smaller of WWᵀ and WᵀW, in double precision."""
    wide = matrix.astype(np.float64)
    return wide.T @ wide if wide.shape[0] >= wide.shape[1] else wide @ wide.T


def effective_rank(values: np.ndarray) -> float:
    """Exp(H(σ / Σ σ)), with H the entropy in nats (Roy & Vetterli 2007)."""
    shares = values[values > 0] / values.sum()
    return math.exp(-(shares * np.log(shares)).sum()) if len(shares) else math.nan


def condition_number(values: np.ndarray) -> float:
    """σ₁ / σₙ; infinite for a matrix that has not full rank."""
    if not values[-1] > 0:
        return math.nan
    return float(values[-1] / values[0]) if values[0] else math.inf


def spectrum_alpha(values: np.ndarray) -> float:
    """The exponent α of the tail of the eigenvalues λ = σ², whose density falls as λ^-α.

    By maximum likelihood, α = 1 + n / Σ ln(λ / λ_min) (Clauset et al. 2009, eq. 3.1), from the λ_min at which the fit
    is nearest by Kolmogorov and Smirnov's distance (section 3.3), as Martin & Mahoney 2021 take it of weights. Missing
    for fewer than 50 eigenvalues above zero.
    """
    logs = 2 * np.log(values[values > 0])
    if len(logs) < LEAST_EIGENVALUES:
        return math.nan
    nearest, alpha = math.inf, math.nan
    for first in range(len(logs) - LEAST_TAIL + 1):
        above = logs[first:] - logs[first]
        if not (total := above.sum()) > 0:
            continue
        count, rise = len(above), len(above) / total
        below = 1 - np.exp(-rise * above)
        steps = np.arange(count) / count
        gap = max((below - steps).max(), (steps + 1 / count - below).max())
        if gap < nearest:
            nearest, alpha = gap, 1 + rise
    return float(alpha)


TABLE = {
    "effective_rank": effective_rank,
    "condition_number": condition_number,
    "spectrum_alpha": spectrum_alpha,
}
"""Of all singular values, `(n,)` rising."""


def norms(matrix: np.ndarray, vector: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Spectral norm, stable rank ‖W‖F² / ‖W‖₂² (Rudelson & Vershynin 2007), and where to begin the next time.

    Both are NaN for entries that are not finite; a matrix of zeros has norm 0 and no rank.
    """
    top = float(np.abs(matrix).max())
    if not math.isfinite(top):
        return math.nan, math.nan, vector
    if not top:
        return 0.0, math.nan, vector
    unit = math.ldexp(1.0, max(math.frexp(top)[1], -125))
    scaled = np.ascontiguousarray(matrix * matrix.dtype.type(1 / unit))
    if min(scaled.shape) <= SMALL:
        found, after = float(np.sqrt(np.linalg.eigvalsh(_products(scaled))[-1])), vector
    else:
        found, after = largest(scaled, vector.astype(scaled.dtype))
    flat = scaled.reshape(-1)
    return unit * found, float(flat @ flat) / found**2 if found else math.nan, after


def ends(matrix: np.ndarray) -> dict[str, float]:
    """The table's statistics of a matrix; NaN where entries are not finite."""
    if not np.isfinite(matrix).all():
        return dict.fromkeys(TABLE, math.nan)
    top = float(np.abs(matrix).max()) or 1.0
    values = singular_values(matrix.astype(np.float64) / top)  # none of the table depends on the scale
    if np.isnan(values).any():
        return dict.fromkeys(TABLE, math.nan)
    return {name: statistic(values) for name, statistic in TABLE.items()}
