"""Clipping: what a step's gradients may be at most, and the share that it changes.

The share is of the elements, the tensors, the units, or of all (1 or 0), whichever is scaled by itself.
"""

import tensorflow as tf

from studies.factors.rules import Rule, joint_norm, norm_of, unit_norms


def clip_by_value(limit: float) -> Rule:
    """Every element of a gradient kept within ± `limit`."""

    def clip(gradients, weights):
        return [tf.clip_by_value(g, -limit, limit) for g in gradients], _share([tf.abs(g) > limit for g in gradients])

    return Rule(clip=clip)


def clip_by_norm(norm: float) -> Rule:
    """Scale each tensor's gradient by itself to a norm of at most `norm`."""

    def clip(gradients, weights):
        return _shortened(gradients, [norm_of(g) for g in gradients], [norm] * len(gradients))

    return Rule(clip=clip)


def clip_by_global_norm(norm: float) -> Rule:
    """Scale all gradients together so that their joint norm is at most `norm` (Pascanu et al. 2013, algorithm 1)."""

    def clip(gradients, weights):
        clipped, _ = _shortened(gradients, [joint_norm(gradients)] * len(gradients), [norm] * len(gradients))
        return clipped, _share([joint_norm(gradients) > norm])

    return Rule(clip=clip)


def clip_adaptively(ratio: float, epsilon: float) -> Rule:
    """Scale each unit's gradient to a norm of at most `ratio` times its weights' (Brock et al. 2021, eq. 3).

    Args:
        epsilon: what a unit's weights count as at least, so that those that start at zero can move.
    """

    def clip(gradients, weights):
        limits = [ratio * tf.maximum(unit_norms(w), epsilon) for w in weights]
        return _shortened(gradients, [unit_norms(g) for g in gradients], limits)

    return Rule(clip=clip)


def _shortened(gradients, norms, limits):
    """Gradients scaled to their limits where their norms are above, and the share of the norms that are."""
    longer = [n > limit for n, limit in zip(norms, limits, strict=True)]
    scales = [tf.where(above, limit / n, 1.0) for above, n, limit in zip(longer, norms, limits, strict=True)]
    return [g * scale for g, scale in zip(gradients, scales, strict=True)], _share(longer)


def _share(flags):
    return tf.reduce_mean(tf.cast(tf.concat([tf.reshape(flag, [-1]) for flag in flags], axis=0), tf.float32))
