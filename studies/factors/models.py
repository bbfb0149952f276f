"""Networks for small images: builders `(input_shape, classes, **options) -> keras.Model` that give logits.

Layers are named by their place from the input, so that a layer's initial draw does not change with the depth.
"""

import math
from collections.abc import Callable

import keras
from keras import layers

from studies.record import Work

GROUPS = 8
"""Of group normalization; fewer where they do not divide the channels."""

EPSILON = 1e-5
"""Added to a group's variance (Wu & He 2018's code); Keras's own .001 would leave small signals small."""


def mlp(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    depth: int,
    width: int,
    activation: str,
    normalization: str,
    dropout: float,
    use_bias: bool = True,
) -> keras.Model:
    """`depth` hidden layers of `width` units, each dense, (norm,) activation(, dropout).

    Args:
        use_bias: false leaves the biases of all layers out; a norm keeps its offset.
    """
    inputs = keras.Input(input_shape)
    x = layers.Flatten(name="flatten")(inputs)
    for i in range(1, depth + 1):
        x = _block(x, "dense", i, normalization, activation, units=width, use_bias=use_bias)
        if dropout:
            x = layers.Dropout(dropout, name=f"dropout_{i}")(x)
    return keras.Model(inputs, layers.Dense(classes, use_bias=use_bias, name="logits")(x))


def lenet_300_100(input_shape: tuple[int, ...], classes: int, *, activation: str, use_bias: bool = True) -> keras.Model:
    """LeCun et al. 1998's fully connected net: 266,610 parameters on 28×28 images and 10 classes."""
    inputs = keras.Input(input_shape)
    x = layers.Flatten(name="flatten")(inputs)
    x = layers.Dense(300, activation=activation, use_bias=use_bias, name="dense_1")(x)
    x = layers.Dense(100, activation=activation, use_bias=use_bias, name="dense_2")(x)
    return keras.Model(inputs, layers.Dense(classes, use_bias=use_bias, name="logits")(x))


def cnn(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    filters: list[int],
    kernel_size: int,
    padding: str,
    dense: int,
    activation: str,
    normalization: str,
    spatial_dropout: float,
    dropout: float,
    use_bias: bool = True,
) -> keras.Model:
    """Convolutions, normed if wanted, with 2×2 max pooling after each, a dense layer, logits.

    Args:
        spatial_dropout: of whole maps, after each pooling (Tompson et al. 2015, section 3.2).
        dropout: of the dense layer's units.
        use_bias: as in `mlp`.
    """
    inputs = keras.Input(input_shape)
    x = inputs
    kernels = {"kernel_size": kernel_size, "padding": padding, "use_bias": use_bias}
    for i, count in enumerate(filters, start=1):
        x = _block(x, "conv", i, normalization, activation, filters=count, **kernels)
        x = layers.MaxPooling2D(name=f"pool_{i}")(x)
        if spatial_dropout:
            x = layers.SpatialDropout2D(spatial_dropout, name=f"spatial_dropout_{i}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(dense, activation=activation, use_bias=use_bias, name="dense_1")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout_1")(x)
    return keras.Model(inputs, layers.Dense(classes, use_bias=use_bias, name="logits")(x))


def deep_cnn(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    depth: int,
    width: int,
    activation: str,
    normalization: str,
    use_bias: bool = True,
) -> keras.Model:
    """`depth` convolutions 3×3 of `width` maps, normed if wanted: what `mlp` is for dense layers, under its settings.

    2×2 max pooling after the first and the second, so that all that are deeper work at one resolution.
    """
    inputs = keras.Input(input_shape)
    x = inputs
    kernels = {"filters": width, "kernel_size": 3, "padding": "same", "use_bias": use_bias}
    for i in range(1, depth + 1):
        x = _block(x, "conv", i, normalization, activation, **kernels)
        if i <= 2:
            x = layers.MaxPooling2D(name=f"pool_{i}")(x)
    x = layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, layers.Dense(classes, use_bias=use_bias, name="logits")(x))


def lenet5(input_shape: tuple[int, ...], classes: int, *, activation: str) -> keras.Model:
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


def c3d3(input_shape: tuple[int, ...], classes: int, *, activation: str) -> keras.Model:
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


def vgg_small(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    filters: list[int],
    dense: int,
    activation: str,
    normalization: str,
    spatial_dropout: float,
    dropout: float,
) -> keras.Model:
    """Blocks of two 3×3 convolutions and a pooling, as in VGG (Simonyan & Zisserman 2015), and a dense layer."""
    inputs = keras.Input(input_shape)
    x = inputs
    for i, count in enumerate(filters, start=1):
        for j in (1, 2):
            name = f"{i}_{j}"
            x = _block(x, "conv", name, normalization, activation, filters=count, kernel_size=3, padding="same")
        x = layers.MaxPooling2D(name=f"pool_{i}")(x)
        if spatial_dropout:
            x = layers.SpatialDropout2D(spatial_dropout, name=f"spatial_dropout_{i}")(x)
        if dropout:
            x = layers.Dropout(dropout, name=f"dropout_{i}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(dense, activation=activation, name="dense_1")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x))


def resnet(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    blocks: int,
    width: int,
    activation: str,
    normalization: str,
    shortcut: bool,
    zero_last: bool,
) -> keras.Model:
    """He et al. 2016's nets for CIFAR-10 (section 4.2): 6 · `blocks` + 2 layers, 269,722 trained parameters at 3 · 16.

    Args:
        blocks: in each of the three stages, of two convolutions each.
        width: channels of the first stage; they double from stage to stage.
        shortcut: false gives the plain counterpart, which has the same weights.
        zero_last: every residual branch starts at zero, so that a block starts as its shortcut: by its last norm's
            gamma (Goyal et al. 2017, section 5.1), or its last kernel where no norm has one (Fixup: Zhang et al. 2019).
    """
    if zero_last and not shortcut:
        raise ValueError("zero_last=True without shortcuts gives a network of zeros: it needs shortcut=True")
    inputs = keras.Input(input_shape)
    settings = {"kernel_size": 3, "padding": "same"}
    x = _block(inputs, "conv", "0", normalization, activation, filters=width, **settings)
    for stage in (1, 2, 3):
        count = width * 2 ** (stage - 1)
        for block in range(1, blocks + 1):
            name, stride = f"{stage}_{block}", 2 if stage > 1 and block == 1 else 1
            y = _block(x, "conv", f"{name}_1", normalization, activation, filters=count, strides=stride, **settings)
            y = _block(y, "conv", f"{name}_2", normalization, None, zero=zero_last, filters=count, **settings)
            if shortcut:
                # Without parameters (option A): every second pixel, and zeros for the new channels.
                kept = x if stride == 1 else x[:, ::2, ::2]
                y = y + keras.ops.pad(kept, [[0, 0], [0, 0], [0, 0], [0, count - kept.shape[-1]]])
            x = layers.Activation(activation, name=f"activation_{name}_2")(y)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x))


def row_rnn(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    cell: str,
    width: int,
    pixels: int | None = None,
    activation: str = "tanh",
) -> keras.Model:
    """A recurrent layer that reads an image row by row, or so many pixels at a time (one: Le et al. 2015, section 4.2).

    Args:
        cell: simple, gru or lstm.
        pixels: read at a step, from the upper left on; None for a row.
    """
    height, columns, channels = input_shape
    each = pixels or columns
    if height * columns % each:
        raise ValueError(f"pixels={each} must divide the {height * columns} of an image")
    inputs = keras.Input(input_shape)
    rows = layers.Reshape((height * columns // each, each * channels), name="rows")(inputs)
    layer = {"simple": layers.SimpleRNN, "gru": layers.GRU, "lstm": layers.LSTM}[cell](
        width, activation=activation, name="rnn_1"
    )
    return keras.Model(inputs, layers.Dense(classes, name="logits")(layer(rows)))


def vit(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    patch: int,
    width: int,
    depth: int,
    heads: int,
    activation: str,
    zero_last: bool,
) -> keras.Model:
    """A small vision transformer (Dosovitskiy et al. 2021): pre-norm blocks, learned positions, mean of the tokens.

    Args:
        zero_last: the last kernel of every residual branch starts at zero (Zhang et al. 2019).
    """
    height, columns, _ = input_shape
    if height % patch or columns % patch or width % heads:
        raise ValueError(f"patch must divide {height} and {columns}, heads must divide width")
    tokens = (height // patch) * (columns // patch)
    inputs = keras.Input(input_shape)
    x = layers.Conv2D(width, patch, strides=patch, name="patches")(inputs)
    x = Positions(name="positions")(layers.Reshape((tokens, width), name="tokens")(x))

    last = {"kernel_initializer": "zeros"} if zero_last else {}

    def split(y):
        return keras.ops.transpose(keras.ops.reshape(y, (-1, tokens, heads, width // heads)), (0, 2, 1, 3))

    for i in range(1, depth + 1):
        y = layers.LayerNormalization(name=f"norm_{i}_1")(x)
        query, key, value = (split(layers.Dense(width, name=f"{part}_{i}")(y)) for part in ("query", "key", "value"))
        scores = keras.ops.matmul(query, keras.ops.transpose(key, (0, 1, 3, 2))) / (width // heads) ** 0.5
        y = keras.ops.transpose(keras.ops.matmul(keras.ops.softmax(scores), value), (0, 2, 1, 3))
        x = x + layers.Dense(width, **last, name=f"attention_{i}")(keras.ops.reshape(y, (-1, tokens, width)))
        y = layers.LayerNormalization(name=f"norm_{i}_2")(x)
        y = layers.Dense(4 * width, activation=activation, name=f"dense_{i}_1")(y)
        x = x + layers.Dense(width, **last, name=f"dense_{i}_2")(y)
    x = layers.GlobalAveragePooling1D(name="mean")(layers.LayerNormalization(name="norm")(x))
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x))


def work(model: keras.Model, count: Callable = lambda kernel: math.prod(kernel.shape)) -> Work:
    """What one example costs a model, counted.

    A kernel's weights each are a multiply-add wherever it is used: at each place of the output, of a transposed
    convolution's input, at each step of a recurrence, whether they are trained or not. A product of two signals, as
    attention has, counts as a dense layer's.

    Args:
        count: how many of a kernel's weights count; all by default.
    """
    used = dense = convolution = 0
    for operation in getattr(model, "operations", model.layers):
        if isinstance(operation, keras.Model):
            inner = work(operation, count)
            used, dense, convolution = used + inner.layers, dense + inner.dense, convolution + inner.convolution
            continue
        (before, after), kind = _shapes(operation), type(operation).__name__
        weights = sum(count(v) for v in _kernels(operation))
        if kind == "Matmul":
            dense += math.prod(after[1:]) * before[-1]
        elif isinstance(operation, layers.RNN | layers.Bidirectional):
            ways = 1 + isinstance(operation, layers.Bidirectional)  # one after the other
            used, dense = used + ways * before[1], dense + before[1] * weights
        elif weights:
            places, used = math.prod((before if kind.endswith("Transpose") else after)[1:-1]), used + 1
            if "Conv" in kind:
                convolution += places * weights
            else:
                dense += places * weights
    return Work(used, dense, convolution)


def _shapes(operation) -> tuple[tuple, tuple]:
    """Of what goes in first and what comes out first; of one number where a model does not say."""
    nodes = operation._inbound_nodes
    if not nodes or not nodes[-1].input_tensors:
        return (None, 1), (None, 1)
    return nodes[-1].input_tensors[0].shape, nodes[-1].output_tensors[0].shape


def _kernels(operation) -> list:
    return [v for v in getattr(operation, "weights", ()) if v.path.endswith("kernel")]


def _block(x, kind, name, normalization, activation, *, zero=False, **settings):
    """A dense layer or a convolution, a norm and an activation, any of the last two left out.

    Args:
        kind: dense or conv, which begins the layer's name.
        normalization: none, batch, layer, group, rms or weight.
        zero: the output starts at zero, by the norm's factor if there is one, else by the kernel.
    """
    norm = _norm(normalization, settings.get("filters", settings.get("units")), f"norm_{name}")
    standardized = normalization == "weight"
    layer = {
        ("dense", False): layers.Dense,
        ("conv", False): layers.Conv2D,
        ("dense", True): StandardizedDense,
        ("conv", True): StandardizedConv2D,
    }[kind, standardized]
    if norm is None:
        settings |= {"kernel_initializer": "zeros"} if zero else {}
        return layer(activation=activation, name=f"{kind}_{name}", **settings)(x)
    offset = hasattr(norm, "beta_initializer")  # then a bias before the norm would do nothing
    settings["use_bias"] = settings.get("use_bias", True) and not offset
    x = norm(layer(name=f"{kind}_{name}", **settings)(x))
    if zero:
        factor = norm.gamma if offset else norm.scale
        factor.assign(keras.ops.zeros_like(factor))
    return x if activation is None else layers.Activation(activation, name=f"activation_{name}")(x)


def _norm(normalization, channels, name):
    match normalization:
        case "batch":
            return layers.BatchNormalization(name=name)
        case "layer":  # Ba et al. 2016; of maps it is group normalization in one group (Wu & He 2018, section 3.1)
            return layers.GroupNormalization(1, epsilon=EPSILON, name=name)
        case "group":
            return layers.GroupNormalization(math.gcd(GROUPS, channels), epsilon=EPSILON, name=name)
        case "rms":  # Zhang & Sennrich 2019, over the channels
            return layers.RMSNormalization(name=name)


def standardized(kernel: keras.KerasTensor, gain: float) -> keras.KerasTensor:
    """Each unit's weights with mean 0 and variance gain² / fan-in, which keeps the signal's (Brock et al. 2021, eq. 1).

    Qiao et al. 2019 standardize to variance 1 and leave the scale to a norm; here there is none.
    """
    axes = list(range(len(kernel.shape) - 1))
    mean, variance = keras.ops.moments(kernel, axes, keepdims=True)
    fan_in = math.prod(kernel.shape[:-1])
    return gain * (kernel - mean) / keras.ops.sqrt(keras.ops.maximum(fan_in * variance, 1e-4))


class Standardized:
    """Weight standardization of a layer: its kernel is trained, and used standardized."""

    name: str
    activation: Callable

    @property
    def gain(self) -> float:
        """What makes up for the activation: a ReLU's output of N(0, 1) has variance (1 − 1/π) / 2."""
        return math.sqrt(2 / (1 - 1 / math.pi)) if self.activation is keras.activations.relu else 1.0


@keras.saving.register_keras_serializable("studies")
class StandardizedDense(Standardized, layers.Dense):
    """A dense layer under weight standardization."""

    def call(self, inputs: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        """The activation of `(batch, units)`."""
        x = keras.ops.matmul(inputs, standardized(self.kernel, self.gain))
        return self.activation(x if self.bias is None else x + self.bias)


@keras.saving.register_keras_serializable("studies")
class StandardizedConv2D(Standardized, layers.Conv2D):
    """A convolution under weight standardization."""

    def convolution_op(self, inputs: keras.KerasTensor, kernel: keras.KerasTensor) -> keras.KerasTensor:
        """The convolution, before bias and activation."""
        return super().convolution_op(inputs, standardized(kernel, self.gain))


@keras.saving.register_keras_serializable("studies")
class Positions(layers.Layer):
    """Adds a learned vector to each token: N(0, .02²) at first."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Make the vectors, `(tokens, width)`."""
        self.embedding = self.add_weight(
            shape=shape[1:], initializer=keras.initializers.RandomNormal(stddev=0.02), name="embedding"
        )

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        """The tokens, `(batch, tokens, width)`, with their places."""
        return x + self.embedding
