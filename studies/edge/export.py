"""A Keras model as a LiteRT file, in single precision or whole numbers of 8 bits, and the interpreter that runs it."""

import gzip
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from studies.record import StudyError

KINDS = ("float", "int8")
"""float32 weights and activations; int8 ones wherever the interpreter has such an operation."""

CALIBRATION = 128
"""How many images the ranges of an int8 file's activations are taken from."""

INT8 = np.iinfo(np.int8)


@dataclass(frozen=True)
class File:
    """A model as a device gets it.

    Attributes:
        kind: one of `KINDS`.
        content: the file's.
        fallen: of an int8 file the operations that work in floats all the same, none if it is int8 from end to end.
    """

    kind: str
    content: bytes
    fallen: tuple[str, ...] = ()

    @property
    def compressed(self) -> int:
        """Its bytes after gzip, by which zeros cost next to nothing."""
        return len(gzip.compress(self.content, mtime=0))


def exported(model: keras.Model, images: np.ndarray | None = None) -> File:
    """A model as a file for one image at a time: `(1, …)` in, the model's outputs `(1, classes)` out.

    Normalization is folded into the layer before it, by the converter. Recurrent layers are unrolled: an int8 file of
    their loops ends the process that calibrates it.

    Args:
        images: `(images, …)` float32, as the model takes them, for the ranges of an int8 file; None for a float one.

    Raises:
        StudyError: the model has what no file can hold, or what only TensorFlow can run.
    """
    weights = [[v.numpy() for v in some] for some in (model.trainable_variables, model.non_trainable_variables)]

    # Constants, not variables: those have no values where the converter runs the graph to calibrate it.
    @tf.function(input_signature=[tf.TensorSpec((1, *model.input_shape[1:]), name="image")], autograph=False)
    def outputs(image):
        return model.stateless_call(*weights, image, training=False)[0]

    with _unrolled(model):
        graph = outputs.get_concrete_function()
    module = tf.Module()
    module.outputs = outputs
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph], module)
    if images is None:
        return File("float", _converted(converter))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images[:CALIBRATION])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    try:
        content = _converted(converter)
    except StudyError:  # an operation without any int8 kernel: with floats for that one
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.inference_input_type = converter.inference_output_type = tf.float32
        content = _converted(converter)
    return File("int8", content, _in_floats(content))


def _converted(converter) -> bytes:
    try:
        with _quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that statistics are missing, which are taken from the images
            return converter.convert()
    except Exception as error:  # the converter's own, and whatever its passes raise
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise StudyError(
            f"the model cannot be exported: {lines[0].strip()[:200]}. Choose a model of layers that LiteRT has"
        ) from error


def _in_floats(content: bytes) -> tuple[str, ...]:
    """The operations of an int8 file that give floats, those left out that only change the type."""
    library = interpreters()
    plain = library.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # with them an operation is their business
    opened = library.Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=plain)
    types = {each["index"]: each["dtype"] for each in opened.get_tensor_details()}
    names = (
        operation["op_name"]
        for operation in opened._get_ops_details()
        if any(types.get(index) is np.float32 for index in operation["outputs"])
    )
    return tuple(dict.fromkeys(name for name in names if name not in ("DEQUANTIZE", "QUANTIZE")))


@contextmanager
def _unrolled(model) -> Iterator[None]:
    recurrent = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.RNN)]
    before = [layer.unroll for layer in recurrent]
    for layer in recurrent:
        layer.unroll = True
    try:
        yield
    finally:
        for layer, unroll in zip(recurrent, before, strict=True):
            layer.unroll = unroll


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the converter prints from C++, whatever Python's streams are."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        with suppress(OSError):
            os.close(kept)


def interpreters():
    """The module of LiteRT's interpreter.

    Raises:
        StudyError: it is not installed.
    """
    try:
        from ai_edge_litert import interpreter
    except ImportError as error:
        raise StudyError(
            f"exported models are run by LiteRT's interpreter, which is not installed ({error}): expected the extra "
            f"edge, pip install 'weight-studies[edge]', or ai-edge-litert alone"
        ) from error
    return interpreter


class Runner:
    """A file in the interpreter: one image at a time, one thread.

    Args:
        file: from `exported`.
    """

    def __init__(self, file: File):
        with _quiet():
            self.interpreter = interpreters().Interpreter(model_content=file.content, num_threads=1)
            self.interpreter.allocate_tensors()
        [self.input], [self.output] = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        self.invoke = self.interpreter.invoke

    def give(self, image: np.ndarray) -> None:
        """Set the input, `(…)` float32 as the model takes it, in the file's own numbers."""
        if self.input["dtype"] is np.int8:
            scale, zero = self.input["quantization"]
            image = np.clip(np.rint(image / scale) + zero, INT8.min, INT8.max)
        self.interpreter.set_tensor(self.input["index"], image[None].astype(self.input["dtype"]))

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """The outputs for each image, `(images, classes)`, float32."""
        found = []
        for image in images:
            self.give(image)
            self.invoke()
            found.append(self.interpreter.get_tensor(self.output["index"])[0])
        numbers = np.array(found, np.float32)
        if self.output["dtype"] is np.int8:
            scale, zero = self.output["quantization"]
            numbers = (numbers - zero) * scale
        return numbers

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        """The share of images `(images, …)` whose label `(images,)` has the greatest output; of equals the first."""
        return float(np.mean(self.outputs(images).argmax(axis=1) == labels))
