"""The features of the records of a prepared data set, for TensorFlow Datasets; this module loads no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds

from stajax.media.spectrogram import NUM_BINS

Set = Literal["clips", "frames", "sounds"]
SETS: tuple[Set, ...] = ("clips", "frames", "sounds")
SOUND_COLUMNS = 100  # the columns of one record, because any 98 successive columns touch at most two records
INTEGERS = ("width", "height", "first_frame", "num_frames", "first_sound", "num_sounds", "num_columns")


def set_features(name: Set, side: int, categories: Sequence[str]) -> dict[str, Any]:
  """Returns the features of one record of a set.

  Args:
    name: The name of the set.
    side: The side of the frames in pixels.
    categories: The names of the tags.
  """
  features = tfds.features
  if name == "frames":
    return {"key": features.Text(), "image": features.Image(shape=(side, side, 3), encoding_format="jpeg")}
  if name == "sounds":
    # Without `encoding`, float16 would be kept as float32, at twice the size.
    columns = features.Tensor(shape=(NUM_BINS, SOUND_COLUMNS), dtype=np.float16, encoding="bytes")
    return {"key": features.Text(), "columns": columns}
  # A scalar feature of type float64 would be kept as float32: the Example format has no doubles.
  double = features.Tensor(shape=(), dtype=np.float64, encoding="bytes")
  return {
    "name": features.Text(),
    "tags": features.Sequence(features.ClassLabel(names=list(categories))),
    "flags": features.Sequence(features.Text()),
    "rate": double,
    "duration": double,
    **{name: np.int64 for name in INTEGERS},
    "sound_mean": np.float32,
    "sound_std": np.float32,
    "has_sound": np.bool_,
  }
