"""Registers what `stajax prepare SOURCE --out DIR` wrote as data sets of TensorFlow Datasets, one for each source.

  import stajax.data.tfds_builders
  frames = tfds.load("stajax_ave/frames", split="train", data_dir="DIR")

The splits are the parts of the source, such as `train` and `test`; the configurations are its sets: `clips` (the
default), `frames` and `sounds`. `tfds.data_source` reads the same in any order. `DIR` may also be the folder of one
part.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import splits as tfds_splits

from stajax.data.metadata import check_metadata
from stajax.data.schema import SETS
from stajax.data.shards import SPLIT, VERSION, RecordError
from stajax.files import read_json

_CHUNK = 64
"""The number of records that are read at a time."""
_DESCRIPTIONS = {
  "clips": "A record a clip: its tags, the rate of its frames, and where its frames and sounds begin.",
  "frames": "A record a frame: a JPEG of the clip at a time of the grid.",
  "sounds": "A record a second of sound: one hundred columns of the log-spectrogram.",
}


class _PreparedBuilder(tfds.core.DatasetBuilder, skip_registration=True):
  """Reads the sets of a source; its subclasses are the data sets that users name.

  Attributes:
    source: The source of `stajax prepare`.
  """

  VERSION = tfds.core.Version(VERSION)
  BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=name, description=_DESCRIPTIONS[name]) for name in SETS]
  source: str

  def __init__(self, *, data_dir: str | os.PathLike[str] | None = None, **options: Any) -> None:
    """Opens the sets of all parts in `data_dir`.

    Args:
      data_dir: The folder that `stajax prepare` wrote, or a part of it.
      options: `config` and `version`, as for every builder.

    Raises:
      RecordError: There are no records of this source in the folder.
    """
    if data_dir is None:
      raise RecordError(f"{self.name}: expected data_dir, the folder that `stajax prepare {self.source}` wrote")
    self._parts = _find_parts(Path(data_dir), self.source)
    for part in self._parts.values():
      for name in SETS:
        check_metadata(part / name / VERSION)
    super().__init__(data_dir=data_dir, **options)
    splits = []
    for part in self._parts:
      own = tfds.builder_from_directory(self._folder(part)).info.splits[SPLIT]
      splits.append(tfds_splits.MultiSplitInfo(name=part, split_infos=[own]))
    self.info.set_splits(tfds_splits.SplitDict(splits))

  def _folder(self, part: str) -> Path:
    return self._parts[part] / str(self.builder_config_name) / VERSION

  def _build_data_dir(self, given_data_dir: str) -> tuple[str, str]:  # pyright: ignore[reportIncompatibleMethodOverride]
    """Returns the root and the folder with the features, which are those of every part."""
    return given_data_dir, os.fspath(self._folder(next(iter(self._parts))))

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(builder=self)

  def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
    raise RecordError(f"{self.data_dir}: stajax does not download; run `stajax prepare {self.source}`")

  def _as_dataset(
    self, split: Any, decoders: Any = None, read_config: Any = None, shuffle_files: bool = False
  ) -> Any:  # a tf.data.Dataset
    """Returns the records of a split in their order, or in random order with `shuffle_files`."""
    from stajax.data.tensorflow_cpu import tf

    builder: Any = self  # type checkers do not see through the decorator of its methods
    source = builder.as_data_source(split).data_source  # the records of a slice of the split, not decoded
    features: Any = self.info.features
    if isinstance(decoders, tfds.decode.PartialDecoding):
      features, decoders = decoders.extract_features(features), decoders.decoders
    read_config = read_config or tfds.ReadConfig()
    ids = tf.data.Dataset.range(len(source))
    if read_config.input_context is not None:
      ids = ids.shard(read_config.input_context.num_input_pipelines, read_config.input_context.input_pipeline_id)
    if shuffle_files and len(source):
      ids = ids.shuffle(len(source), seed=read_config.shuffle_seed)

    def read(chunk: Any) -> Any:
      records = tf.numpy_function(
        lambda found: np.array(source.__getitems__(found.tolist()), object), [chunk], tf.string
      )
      return tf.ensure_shape(records, [None])

    records = ids.batch(_CHUNK).map(read).unbatch()
    decoded = records.map(
      lambda record: features.deserialize_example(record, decoders=decoders), num_parallel_calls=tf.data.AUTOTUNE
    )
    return decoded.prefetch(tf.data.AUTOTUNE).with_options(read_config.options)


def _find_parts(folder: Path, source: str) -> dict[str, Path]:
  """Returns the folders of the prepared parts by name, in alphabetical order.

  Raises:
    RecordError: There is none, or one is of another source.
  """
  parts = {path.name: path for path in sorted(folder.iterdir()) if _is_part(path)} if folder.is_dir() else {}
  if _is_part(folder):
    parts = {folder.resolve().name: folder}
  if not parts:
    raise RecordError(f"{folder}: no records (expected folders such as train that `stajax prepare {source}` wrote)")
  for path in parts.values():
    try:
      found = read_json(path / "summary.json")["source"]
    except (ValueError, KeyError, TypeError) as error:
      raise RecordError(f"{path / 'summary.json'}: not the summary of records ({error!r})") from error
    if found != source:
      raise RecordError(f"{path}: records of the source {found}, expected {source}")
  return parts


def _is_part(folder: Path) -> bool:
  # A part that is being written has a name with a dot before it.
  return (folder / "summary.json").is_file() and (folder / "clips").is_dir() and not folder.name.startswith(".")


class StajaxAve(_PreparedBuilder):
  """AVE (Tian et al., 2018), as `stajax prepare ave` wrote it."""

  source = "ave"


class StajaxVggsound(_PreparedBuilder):
  """VGGSound (Chen et al., 2020), as `stajax prepare vggsound` wrote it."""

  source = "vggsound"


class StajaxFolders(_PreparedBuilder):
  """Clips in one folder for each tag, as `stajax prepare folders` wrote them."""

  source = "folders"


class StajaxCsv(_PreparedBuilder):
  """Clips of a table, as `stajax prepare csv` wrote them."""

  source = "csv"


class StajaxStavis(_PreparedBuilder):
  """Eye-tracking sets in the layout of STAViS, as `stajax prepare stavis` wrote them; without tags."""

  source = "stavis"


class StajaxDhf1k(_PreparedBuilder):
  """DHF1K (Wang et al., 2018), as `stajax prepare dhf1k` wrote it; without tags."""

  source = "dhf1k"


class StajaxSynthetic(_PreparedBuilder):
  """Rendered clips, as `stajax prepare synthetic` wrote them."""

  source = "synthetic"
