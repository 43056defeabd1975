"""Writes and parses serialized `tf.train.Example` protos without TensorFlow, which takes seconds to load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

# Type checkers do not know the classes that the module makes when it is loaded.
_Example: Any = tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]


class Encoder:
  """Turns examples into serialized protos, as TFDS does, but into the same bytes in every process.

  Nested and ragged features are not supported.

  Attributes:
    features: The TFDS features of one record.
  """

  def __init__(self, features: Mapping[str, Any]) -> None:
    """Makes an encoder for the TFDS features of one record."""
    self.features = tfds.features.FeaturesDict(dict(features))
    serialized: dict[str, Any] = dict(self.features.get_serialized_info())  # it is flat, because nothing is nested
    self._kinds = {name: np.dtype(info.np_dtype).kind for name, info in serialized.items()}

  def __call__(self, example: dict[str, Any]) -> bytes:
    """Returns the serialized proto of one example."""
    proto = _Example()
    for name, value in self.features.encode_example(example).items():
      feature, kind = proto.features.feature[name], self._kinds[name]
      parts = value if isinstance(value, list) else [value]
      values = [item for part in parts for item in ([part] if isinstance(part, bytes) else np.ravel(part).tolist())]
      if kind in "OUS":
        feature.bytes_list.value.extend(item if isinstance(item, bytes) else item.encode() for item in values)
        feature.bytes_list.SetInParent()  # also if there are no values
      elif kind == "f":
        feature.float_list.value.extend(values)
        feature.float_list.SetInParent()
      else:
        feature.int64_list.value.extend(map(int, values))
        feature.int64_list.SetInParent()
    return proto.SerializeToString(deterministic=True)


def find_bytes(record: bytes, name: str) -> bytes:
  """Returns the only value of a feature of a serialized proto.

  Raises:
    ValueError: This is not such a proto, or the feature does not have exactly one value.
  """
  try:
    values = _Example.FromString(record).features.feature[name].bytes_list.value
  except DecodeError as error:
    raise ValueError(f"a record cannot be parsed ({error})") from error
  if len(values) != 1:
    raise ValueError(f"a record has {len(values)} values of {name}, expected 1")
  return values[0]
