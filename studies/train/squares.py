"""Squared norms of gradients and updates, summed inside a compiled step: of each kernel, and of the gates of some."""

import tensorflow as tf

LEAST, MOST = 1e-25, 1e30
"""Sums of squares between these are had to six digits in single precision, which has no squares below 1e-45 or above
1e38: what is lost of the entries below 1e-22 is no part of them. Others are summed anew in double precision."""


class Squares:
    """What a step adds up.

    Args:
        kernels: the variables.
        gates: how many each has side by side in its last axis, 0 for none.
        xla: whether the step is compiled by XLA.
    """

    def __init__(self, kernels: list, gates: list[int], xla: bool):
        self.shapes, self.gates, self.xla = [tuple(v.shape) for v in kernels], gates, xla

    def zeros(self) -> list[tf.Tensor]:
        """What sums begin with."""
        if self.xla:
            return [tf.zeros(shape, tf.float64) for shape in self.shapes] * 2
        return [tf.zeros(2 * sum(gates or 1 for gates in self.gates), tf.float64)]

    def of(self, gradients: list[tf.Tensor], updates: list[tf.Tensor]) -> list[tf.Tensor]:
        """What a step adds.

        With XLA each entry's square in double precision, which it puts into the loops that make the entries: a sum in
        every step costs three times as much. Else one operation a kernel, which makes no copy of it.
        """
        if self.xla:
            return [tf.square(tf.cast(tensor, tf.float64)) for tensor in (*gradients, *updates)]
        both, gates = [*gradients, *updates], self.gates * 2
        quick = _joined([_sums(tensor, count) for tensor, count in zip(both, gates, strict=True)])

        def exact():
            wide = (tf.cast(tensor, tf.float64) for tensor in both)
            return _joined([_sums(tensor, count) for tensor, count in zip(wide, gates, strict=True)])

        safe = tf.reduce_all((quick > LEAST) & (quick < MOST))
        return [tf.cond(safe, lambda: tf.cast(quick, tf.float64), exact)]

    def whole(self, totals: list[tf.Tensor]) -> tf.Tensor:
        """Of what steps have added: each kernel's sum, then each gate's, `(2, kernels + gates)`."""
        if self.xla:
            parts = [_sums(squares, count, tf.identity) for squares, count in zip(totals, self.gates * 2, strict=True)]
        else:
            parts = tf.split(totals[0], [count or 1 for count in self.gates] * 2)
        rows = []
        for half in (parts[: len(self.gates)], parts[len(self.gates) :]):
            of_gates = [part for part, count in zip(half, self.gates, strict=True) if count]
            rows.append(_joined([*(tf.reduce_sum(part)[None] for part in half), *of_gates]))
        return tf.stack(rows)


def update_ratio(updates: list[tf.Tensor], weights: list[tf.Tensor]) -> tf.Tensor:
    """‖Δw‖ / ‖w‖ of all of them together, a scalar; not finite where a norm is above 1e19."""
    # Not `add_n`, which begins with whichever input's buffer is free: the last bit then hangs on threads.
    moved, there = (
        tf.reduce_sum(tf.stack([tf.nn.l2_loss(tensor) for tensor in tensors])) for tensors in (updates, weights)
    )
    return tf.math.divide_no_nan(tf.sqrt(moved), tf.sqrt(there))


def _sums(tensor, gates: int, of=tf.square) -> tf.Tensor:
    """The squares' sum, `(1,)`, or each gate's, `(gates,)`, in the tensor's own precision."""
    if gates:
        return tf.reduce_sum(of(tf.reshape(tensor, (-1, gates, tensor.shape[-1] // gates))), axis=(0, 2))
    return (2 * tf.nn.l2_loss(tensor) if of is tf.square else tf.reduce_sum(tensor))[None]


def _joined(vectors) -> tf.Tensor:
    return tf.concat(vectors, axis=0) if vectors else tf.zeros(0, tf.float64)
