"""A trained network as a file that Keras loads by itself."""

from pathlib import Path

import keras
import numpy as np

from studies.record import StudyError

REFUSED = (TypeError, ValueError, NotImplementedError, AttributeError, ImportError)
"""What Keras raises for what it cannot save or load."""


def save(model: keras.Model, scale: np.ndarray, shift: np.ndarray, file: str | Path, tried: bool = False) -> None:
    """Save a model, and in front of it what scales images, so that it takes them as the dataset has them.

    Args:
        scale, shift: `(channels,)`: the model itself takes `x * scale + shift`.
        file: ends in `.keras`; there is a whole one or none.
        tried: whether it is loaded too, in Keras's safe mode.

    Raises:
        StudyError: it has a part that Keras cannot save, or load.
    """
    inputs = keras.Input(model.input_shape[1:], name="images")
    scaled = keras.layers.Rescaling(scale.tolist(), shift.tolist(), name="scaling")(inputs)
    new = Path(file).with_suffix(".new.keras")
    try:
        keras.Model(inputs, model(scaled)).save(new)
        if tried:
            keras.saving.load_model(new)
    except REFUSED as error:
        new.unlink(missing_ok=True)
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise StudyError(
            f"the trained model cannot be kept: {reason[-1][:200]}. Keras saves and loads its own layers, and others "
            f"that are decorated with @keras.saving.register_keras_serializable() and have a get_config; or keep none, "
            f"tracking.models=none"
        ) from error
    new.replace(file)
