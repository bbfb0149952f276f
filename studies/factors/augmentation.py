"""Random changes to training images, in the graph; what is random comes as numbers from 0 to 1, drawn ahead."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from studies.factors.rules import Rule

NUMBERS = 5
"""How many random numbers each image takes."""


def rules(data: dict) -> list[Rule]:
    """What a data node has done to its training images."""
    changes = {name: data[name] for name in ("flip", "crop", "cutout")}
    return [Rule(images=Augmentation(**changes), draw=_draw, stream="augment")] if any(changes.values()) else []


def _draw(rng, steps, batch):
    return rng.random((steps, batch, NUMBERS), np.float32)


@dataclass(frozen=True)
class Augmentation:
    """Images `(batch, height, width, channels)` flipped, cropped, cut out, in this order.

    Attributes:
        flip: half of the images are mirrored, left to right.
        crop: pixels of zeros around an image, of which a window of its size is taken (He et al. 2016, section 4.2).
        cutout: side in pixels of a square of zeros, which the border may cut off (DeVries & Taylor 2017, section 3.2).
    """

    flip: bool = False
    crop: int = 0
    cutout: int = 0

    def __call__(self, images, drawn):
        """The changed images, by the numbers `drawn`, `(batch, NUMBERS)`."""
        _, height, width, _ = images.shape
        flip, down, right, row, column = tf.unstack(drawn, axis=1)
        if self.flip:
            images = tf.where(flip[:, None, None, None] < 0.5, images[:, :, ::-1], images)
        if self.crop:
            around = [[0, 0], [self.crop, self.crop], [self.crop, self.crop], [0, 0]]
            images = tf.pad(images, around)
            images = tf.gather(images, self._window(down, height), axis=1, batch_dims=1)
            images = tf.gather(images, self._window(right, width), axis=2, batch_dims=1)
        if self.cutout:
            rows, columns = self._square(row, height), self._square(column, width)
            images = tf.where((rows[:, :, None] & columns[:, None, :])[..., None], 0.0, images)
        return images

    def _window(self, where, size):
        """Which rows of the padded image each image gets, `(batch, size)`."""
        first = tf.cast(where * (2 * self.crop + 1), tf.int32)
        return first[:, None] + tf.range(size)

    def _square(self, where, size):
        """Which rows are in each image's square, `(batch, size)`; its centre is any row."""
        first = tf.cast(where * size, tf.int32) - self.cutout // 2
        rows = tf.range(size) - first[:, None]
        return (rows >= 0) & (rows < self.cutout)
