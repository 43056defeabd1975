"""Sets of maps beside the records: one uint8 map and one weight for every grid frame, under the frame's id.

A stage writes maps clip by clip into staging, and continues there after an interruption. `finish` writes the set.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from stajax.data.records import Records
from stajax.data.shards import MAX_SHARD_BYTES, RecordError, ShardReader, ShardWriter, read_bytes
from stajax.data.staging import Staging, join_bytes, split_bytes, staging_of
from stajax.files import atomic_folder, read_json, write_json


class MapWriter:
  """Writes the map set of some records; several processes may each use one writer for different clips.

  Attributes:
    path: The folder of the set.
  """

  def __init__(self, path: Path, records: Records) -> None:
    self.path, self._records = path, records
    self._staging = Staging(staging_of(path))

  def has(self, clip: int) -> bool:
    """Returns whether the clip's maps are staged already."""
    return self._staging.has(_key(clip))

  def write(self, clip: int, maps: np.ndarray, weights: np.ndarray) -> None:
    """Stages the maps of one clip, atomically.

    Args:
      clip: The index of the clip.
      maps: (n, h, w) uint8, one for every grid frame.
      weights: (n,) float32; 0 keeps students from training on the frame.

    Raises:
      ValueError: The number or the type of the maps or weights is wrong.
    """
    num_frames = int(self._records.num_frames[clip])
    if maps.dtype != np.uint8 or maps.ndim != 3 or len(maps) != num_frames or weights.shape != (num_frames,):
      raise ValueError(
        f"{self._records.names[clip]}: maps {maps.dtype} {maps.shape} and weights {weights.shape}, "
        f"expected uint8 ({num_frames}, h, w) and ({num_frames},)"
      )
    pngs = join_bytes([_encode_png(image) for image in maps])
    weights, size = np.asarray(weights, np.float32), np.asarray(maps.shape[1:], np.int64)
    self._staging.write_arrays(_key(clip), weights=weights, size=size, **pngs)

  def finish(self, summary: dict[str, Any], max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
    """Writes the set from the staged maps of all clips and removes the staging folder.

    Args:
      summary: The content of `summary.json`, as JSON values.
      max_shard_bytes: The size at which a new shard begins.

    Raises:
      ValueError: A clip is missing, or maps differ in size.
      FileExistsError: The set exists.
    """
    records = self._records
    if self.path.exists():
      raise FileExistsError(f"{self.path}: exists already")
    missing = [name for clip, name in enumerate(records.names) if not self.has(clip)]
    if missing:
      raise ValueError(f"{self.path}: {len(missing)} clips have no maps yet, the first is {missing[0]}")
    with atomic_folder(self.path) as partial:
      weights = self._write_shards(partial, max_shard_bytes)
      # The weights must be known without reading every map.
      np.save(partial / "weights.npy", weights)
      write_json(partial / "summary.json", {**summary, "records": records.digest})
    self._staging.remove()

  def _write_shards(self, folder: Path, max_shard_bytes: int) -> np.ndarray:
    """Writes all staged maps as records and returns the weights (total_frames,) float32."""
    size = tuple(self._staging.read_arrays(_key(0))["size"].tolist())
    features = {
      "key": tfds.features.Text(),
      "map": tfds.features.Image(shape=(*size, 1), dtype=np.uint8, encoding_format="png"),
      "weight": np.float32,
    }
    writer = ShardWriter(folder, "maps", features, max_shard_bytes)
    weights = []
    for clip, name in enumerate(self._records.names):
      arrays = self._staging.read_arrays(_key(clip))
      if tuple(arrays["size"].tolist()) != size:
        raise ValueError(f"{self.path}: maps of {name} are {arrays['size'].tolist()}, others {list(size)}")
      for i, (png, weight) in enumerate(zip(split_bytes(arrays), arrays["weights"].tolist(), strict=True)):
        writer.write({"key": f"{name}/{i:06d}", "map": png, "weight": weight})
      weights.append(arrays["weights"])
    writer.close("stajax maps of grid frames")
    return np.concatenate(weights)


def _key(clip: int) -> str:
  """Returns the staging key of a clip."""
  return f"{clip:08d}"


def _encode_png(image: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, "PNG", compress_level=3)
  return buffer.getvalue()


@dataclass(frozen=True)
class MapSet:
  """The maps of all grid frames of some records.

  Attributes:
    path: The folder of the set.
    weights: (total_frames,) float32, in memory.
    size: (h, w) of every map.
    summary: The content of `summary.json`.
    maps: The reader of the images, which stay on disk.
  """

  path: Path
  weights: np.ndarray
  size: tuple[int, int]
  summary: dict[str, Any]
  maps: ShardReader

  @staticmethod
  def open(path: str | Path, records: Records) -> MapSet:
    """Opens the map set of some records.

    Raises:
      RecordError: The set is missing or damaged, or belongs to other records.
    """
    path = Path(path)
    maps = ShardReader(path)
    try:
      summary = read_json(path / "summary.json")
      weights = np.load(path / "weights.npy", allow_pickle=False)
      height, width, _ = maps.features["map"].shape
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
      raise RecordError(f"{path}: not a set of maps ({error})") from error
    if not isinstance(summary, dict) or summary.get("records") != records.digest or len(maps) != records.total_frames:
      raise RecordError(f"{path}: these are maps of other records than {records.path}")
    if weights.dtype != np.float32 or weights.shape != (len(maps),):
      raise RecordError(f"{path / 'weights.npy'}: {weights.dtype} {weights.shape}, expected float32 ({len(maps)},)")
    return MapSet(path, weights, (height, width), summary, maps)

  def read(self, ids: np.ndarray) -> np.ndarray:
    """Returns the maps (n, h, w) uint8 of the frames `ids` (n,).

    Raises:
      RecordError: A shard or a map is damaged.
    """
    maps = np.empty((len(ids), *self.size), np.uint8)
    for i, png in enumerate(read_bytes(self.maps, ids, "map")):
      try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
          if (image.height, image.width) != self.size or image.mode != "L":
            raise ValueError(f"{image.mode} {image.size} pixels, expected L {self.size[::-1]}")
          maps[i] = np.asarray(image)
      except (OSError, ValueError) as error:
        raise RecordError(f"{self.path}: bad map ({error})") from error
    return maps

  def clip_maps(self, records: Records, clip: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the maps (n, h, w) uint8 and the weights (n,) float32 of one clip."""
    ids = np.arange(int(records.num_frames[clip])) + int(records.first_frame[clip])
    return self.read(ids), self.weights[ids]
