"""Networks for small images: builders `(input_shape, classes, **options) -> keras.Model` that give logits.

Layers are named by their place from the input, so that a layer's initial draw does not change with the depth.
"""

import keras
from keras import layers


def mlp(input_shape, classes, *, depth: int, width: int, activation: str, batch_norm: bool, dropout: float):
    """`depth` hidden layers of `width` units, each dense, (batch norm,) activation(, dropout)."""
    inputs = keras.Input(input_shape)
    x = layers.Flatten(name="flatten")(inputs)
    for i in range(1, depth + 1):
        if batch_norm:
            x = layers.Dense(width, use_bias=False, name=f"dense_{i}")(x)
            x = layers.BatchNormalization(name=f"norm_{i}")(x)
            x = layers.Activation(activation, name=f"activation_{i}")(x)
        else:
            x = layers.Dense(width, activation=activation, name=f"dense_{i}")(x)
        if dropout:
            x = layers.Dropout(dropout, name=f"dropout_{i}")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x))


def lenet_300_100(input_shape, classes, *, activation: str):
    """LeCun et al. 1998's fully connected net: 266,610 parameters on 28×28 images and 10 classes."""
    inputs = keras.Input(input_shape)
    x = layers.Flatten(name="flatten")(inputs)
    x = layers.Dense(300, activation=activation, name="dense_1")(x)
    x = layers.Dense(100, activation=activation, name="dense_2")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x))


def cnn(
    input_shape,
    classes,
    *,
    filters: list[int],
    kernel_size: int,
    padding: str,
    dense: int,
    activation: str,
    dropout: float,
):
    """Convolutions with 2×2 max pooling after each, a dense layer, logits."""
    inputs = keras.Input(input_shape)
    x = inputs
    for i, count in enumerate(filters, start=1):
        x = layers.Conv2D(count, kernel_size, padding=padding, activation=activation, name=f"conv_{i}")(x)
        x = layers.MaxPooling2D(name=f"pool_{i}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(dense, activation=activation, name="dense_1")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout_1")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x))
