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


def lenet5(input_shape, classes, *, activation: str):
    """LeCun et al. 1998's convolutional net as it is used today: max pooling, all maps connected, 61,706 parameters."""
    inputs = keras.Input(input_shape)
    x = layers.Conv2D(6, 5, padding="same", activation=activation, name="conv_1")(inputs)
    x = layers.MaxPooling2D(name="pool_1")(x)
    x = layers.Conv2D(16, 5, activation=activation, name="conv_2")(x)
    x = layers.MaxPooling2D(name="pool_2")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(120, activation=activation, name="dense_1")(x)
    x = layers.Dense(84, activation=activation, name="dense_2")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x))


def c3d3(input_shape, classes, *, activation: str):
    """DeepOBS's 3c3d (Schneider et al. 2019): three convolutions, three dense; 895,210 parameters on CIFAR-10."""
    inputs = keras.Input(input_shape)
    x = inputs
    for i, (count, size, padding) in enumerate([(64, 5, "valid"), (96, 3, "valid"), (128, 3, "same")], start=1):
        x = layers.Conv2D(count, size, padding=padding, activation=activation, name=f"conv_{i}")(x)
        x = layers.MaxPooling2D(3, strides=2, padding="same", name=f"pool_{i}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(512, activation=activation, name="dense_1")(x)
    x = layers.Dense(256, activation=activation, name="dense_2")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x))


def vgg_small(input_shape, classes, *, filters: list[int], dense: int, activation: str, dropout: float):
    """Blocks of two 3×3 convolutions and a pooling, as in VGG (Simonyan & Zisserman 2015), and a dense layer."""
    inputs = keras.Input(input_shape)
    x = inputs
    for i, count in enumerate(filters, start=1):
        for j in (1, 2):
            x = layers.Conv2D(count, 3, padding="same", activation=activation, name=f"conv_{i}_{j}")(x)
        x = layers.MaxPooling2D(name=f"pool_{i}")(x)
        if dropout:
            x = layers.Dropout(dropout, name=f"dropout_{i}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(dense, activation=activation, name="dense_1")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x))


def resnet(input_shape, classes, *, blocks: int, width: int, activation: str, batch_norm: bool, shortcut: bool):
    """He et al. 2016's nets for CIFAR-10 (section 4.2): 6 · `blocks` + 2 layers, 269,722 trained parameters at 3 · 16.

    Args:
        blocks: in each of the three stages, of two convolutions each.
        width: channels of the first stage; they double from stage to stage.
        shortcut: false gives the plain counterpart, which has the same weights.
    """

    def normalized(x, name):
        return layers.BatchNormalization(name=name)(x) if batch_norm else x

    def convolution(x, count, name, stride=1):
        return layers.Conv2D(count, 3, strides=stride, padding="same", use_bias=not batch_norm, name=name)(x)

    inputs = keras.Input(input_shape)
    x = layers.Activation(activation, name="activation_0")(normalized(convolution(inputs, width, "conv_0"), "norm_0"))
    for stage in (1, 2, 3):
        count = width * 2 ** (stage - 1)
        for block in range(1, blocks + 1):
            name, stride = f"{stage}_{block}", 2 if stage > 1 and block == 1 else 1
            y = normalized(convolution(x, count, f"conv_{name}_1", stride), f"norm_{name}_1")
            y = layers.Activation(activation, name=f"activation_{name}_1")(y)
            y = normalized(convolution(y, count, f"conv_{name}_2"), f"norm_{name}_2")
            if shortcut:
                # Without parameters (option A): every second pixel, and zeros for the new channels.
                kept = x if stride == 1 else x[:, ::2, ::2]
                y = y + keras.ops.pad(kept, [[0, 0], [0, 0], [0, 0], [0, count - kept.shape[-1]]])
            x = layers.Activation(activation, name=f"activation_{name}_2")(y)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x))


def row_rnn(input_shape, classes, *, cell: str, width: int):
    """A recurrent layer that reads an image row by row (Le et al. 2015 read it pixel by pixel).

    Args:
        cell: simple, gru or lstm.
    """
    height, columns, channels = input_shape
    inputs = keras.Input(input_shape)
    rows = layers.Reshape((height, columns * channels), name="rows")(inputs)
    layer = {"simple": layers.SimpleRNN, "gru": layers.GRU, "lstm": layers.LSTM}[cell]
    return keras.Model(inputs, layers.Dense(classes, name="logits")(layer(width, name="rnn_1")(rows)))


def vit(input_shape, classes, *, patch: int, width: int, depth: int, heads: int, activation: str):
    """A small vision transformer (Dosovitskiy et al. 2021): pre-norm blocks, learned positions, mean of the tokens."""
    height, columns, _ = input_shape
    if height % patch or columns % patch or width % heads:
        raise ValueError(f"patch must divide {height} and {columns}, heads must divide width")
    tokens = (height // patch) * (columns // patch)
    inputs = keras.Input(input_shape)
    x = layers.Conv2D(width, patch, strides=patch, name="patches")(inputs)
    x = Positions(name="positions")(layers.Reshape((tokens, width), name="tokens")(x))

    def split(y):
        return keras.ops.transpose(keras.ops.reshape(y, (-1, tokens, heads, width // heads)), (0, 2, 1, 3))

    for i in range(1, depth + 1):
        y = layers.LayerNormalization(name=f"norm_{i}_1")(x)
        query, key, value = (split(layers.Dense(width, name=f"{part}_{i}")(y)) for part in ("query", "key", "value"))
        scores = keras.ops.matmul(query, keras.ops.transpose(key, (0, 1, 3, 2))) / (width // heads) ** 0.5
        y = keras.ops.transpose(keras.ops.matmul(keras.ops.softmax(scores), value), (0, 2, 1, 3))
        x = x + layers.Dense(width, name=f"attention_{i}")(keras.ops.reshape(y, (-1, tokens, width)))
        y = layers.LayerNormalization(name=f"norm_{i}_2")(x)
        y = layers.Dense(4 * width, activation=activation, name=f"dense_{i}_1")(y)
        x = x + layers.Dense(width, name=f"dense_{i}_2")(y)
    x = layers.GlobalAveragePooling1D(name="mean")(layers.LayerNormalization(name="norm")(x))
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x))


class Positions(layers.Layer):
    """Adds a learned vector to each token: N(0, .02²) at first."""

    def build(self, shape):
        """Make the vectors, `(tokens, width)`."""
        self.embedding = self.add_weight(
            shape=shape[1:], initializer=keras.initializers.RandomNormal(stddev=0.02), name="embedding"
        )

    def call(self, x):
        """The tokens, `(batch, tokens, width)`, with their places."""
        return x + self.embedding
