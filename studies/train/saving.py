"""A trained network as a file that Keras loads by itself."""

from pathlib import Path

import keras
import numpy as np

from studies.record import StudyError


def save(model: keras.Model, scale: np.ndarray, shift: np.ndarray, file: str | Path) -> None:
    """Save a model with what scales images, `x * scale + shift`, in front, so that it takes them as the dataset has them.

    Args:
        scale, shift: `(channels,)`.
        file: ends in `.keras`; there is a whole one or none.

    Raises:
        StudyError: it has a part that Keras cannot save, or cannot load.
    """
    inputs = keras.Input(model.input_shape[1:], name="images")
    scaled = keras.layers.Rescaling(scale.tolist(), shift.tolist(), name="scaling")(inputs)
    whole, new = keras.Model(inputs, model(scaled)), Path(file).with_suffix(".new.keras")
    try:
        whole.save(new)
        keras.saving.load_model(new)
    except (TypeError, ValueError, NotImplementedError, AttributeError, ImportError) as error:
        new.unlink(missing_ok=True)
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise StudyError(
            f"the trained model cannot be kept ({reason[:300]}): expected layers that Keras can save and load, with a "
            f"get_config of their own where they take arguments. Or keep none, tracking.models=none"
        ) from error
    new.replace(file)
