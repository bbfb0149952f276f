"""What Keras's optimizers lack: clipping, as functions from gradients and their weights to gradients."""

import tensorflow as tf


def clip_by_value(limit: float):
    """Every element of a gradient kept within ± `limit`."""
    return lambda gradients, weights: [tf.clip_by_value(g, -limit, limit) for g in gradients]


def clip_by_norm(norm: float):
    """Scale each tensor's gradient by itself to a norm of at most `norm`."""
    return lambda gradients, weights: [tf.clip_by_norm(g, norm) for g in gradients]


def clip_by_global_norm(norm: float):
    """Scale all gradients together so that their joint norm is at most `norm` (Pascanu et al. 2013, algorithm 1)."""
    return lambda gradients, weights: tf.clip_by_global_norm(gradients, norm)[0]


def clip_adaptively(ratio: float, epsilon: float):
    """Scale each unit's gradient to a norm of at most `ratio` times its weights' (Brock et al. 2021, eq. 3).

    Args:
        epsilon: what a unit's weights count as at least, so that those that start at zero can move.
    """

    def norm(tensor):
        axes = list(range(len(tensor.shape) - 1)) or None  # a unit's incoming weights; a bias as a whole
        return tf.sqrt(tf.reduce_sum(tf.square(tensor), axis=axes, keepdims=True))

    def clip(gradients, weights):
        limits = [ratio * tf.maximum(norm(w), epsilon) for w in weights]
        norms = [norm(g) for g in gradients]
        return [
            g * tf.where(n > limit, limit / tf.maximum(n, 1e-30), 1.0)
            for g, n, limit in zip(gradients, norms, limits, strict=True)
        ]

    return clip
