"""What Keras's optimizers lack: gradient transformations, as functions from gradients to gradients."""

import tensorflow as tf


def clip_by_global_norm(norm: float):
    """Scale all gradients together so that their joint norm is at most `norm` (Pascanu et al. 2013, algorithm 1)."""
    return lambda gradients: tf.clip_by_global_norm(gradients, norm)[0]
