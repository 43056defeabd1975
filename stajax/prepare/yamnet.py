"""YAMNet, read from its TFLite file, scores the sound around every grid frame for AudioSet's 521 classes.

Records keep no waveform, and their spectrogram is not the one that YAMNet takes. Therefore child processes decode the
sound once more, as preparation does. They load no TensorFlow. The TFLite interpreter comes with the extra `yamnet`.
"""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stajax.data.staging import Staging
from stajax.files.manifest import sha256_of_bytes
from stajax.grid import reflect
from stajax.media.audio import SAMPLE_RATE
from stajax.media.file import MediaError
from stajax.media.limits import Limits
from stajax.media.spectrogram import HOP, SEGMENT
from stajax.prepare.clip import MediaSettings, cut_segment_sound, decode_item_sound
from stajax.prepare.listing import Item
from stajax.runtime import quiet_libraries

SAMPLES = 15_600  # 0.975 s: 96 columns of 25 ms, 10 ms apart
MAX_LABEL_BYTES = 2**20


class YamnetError(ValueError):
  """A file is not YAMNet's, or the interpreter is not installed; the message is one line."""


@dataclass(frozen=True)
class ScoredClip:
  """A clip of the records that an item became.

  Attributes:
    key: The name of its scores in staging.
    start: Its first frame in the item.
    num_frames: The number of its frames.
    num_columns: The number of spectrogram columns in the records, which shows whether the sound is still the same.
    is_last: Whether the item ends with it.
  """

  key: str
  start: int
  num_frames: int
  num_columns: int
  is_last: bool


class Yamnet:
  """YAMNet, which turns a waveform (15600,) float32 in [-1, 1] at 16 kHz into a score in [0, 1] for every class.

  Attributes:
    classes: The names of the classes, from the list inside the file.
    sha256: The digest of the file.

  Raises:
    YamnetError: The file is missing or is something else, or the interpreter is not installed.
  """

  def __init__(self, path: Path) -> None:
    try:
      # Only the extra `yamnet` installs it.
      from ai_edge_litert.interpreter import Interpreter  # pyright: ignore[reportMissingImports]
    except ImportError as error:
      raise YamnetError(f"{path}: needs the package ai-edge-litert, pip install 'stajax[yamnet]' ({error})") from None
    try:
      content = Path(path).read_bytes()
      with zipfile.ZipFile(path) as archive:  # the metadata of a TFLite model are an archive appended to it
        (lists,) = [info for info in archive.infolist() if info.filename.endswith(".txt")]
        if lists.file_size > MAX_LABEL_BYTES:
          raise ValueError(f"{lists.filename} in it has {lists.file_size} bytes")
        self.classes = tuple(archive.read(lists).decode().splitlines())
      with quiet_libraries():
        self._interpreter = Interpreter(model_content=content, num_threads=1)
        self._interpreter.allocate_tensors()
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
      expected = "expected YAMNet as a TFLite file with its list of classes inside"
      raise YamnetError(f"{path}: {expected} ({' '.join(str(error).split())})") from None
    self.sha256 = sha256_of_bytes(content)
    ends = [*self._interpreter.get_input_details(), *self._interpreter.get_output_details()]
    found = [(tuple(end["shape"].tolist()), end["dtype"]) for end in ends]
    if found != [((SAMPLES,), np.float32), ((1, len(self.classes)), np.float32)]:
      shapes = ", ".join(f"{np.dtype(dtype)} {shape}" for shape, dtype in found)
      expected = f"float32 ({SAMPLES},) and (1, {len(self.classes)})"
      raise YamnetError(f"{path}: takes and gives {shapes}, expected YAMNet's {expected}")
    self._input, self._output = (end["index"] for end in ends)

  def scores(self, samples: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Scores the sound around each time.

    Args:
      samples: (m,) float32 at 16 kHz in [-1, 1], m > 0. They are reflected past their ends, as for all networks.
      times: (n,) seconds.

    Returns:
      (n, classes) float16 in [0, 1].
    """
    scores = np.zeros((len(times), len(self.classes)), np.float16)
    for i, time in enumerate(times.tolist()):
      first = round(time * SAMPLE_RATE) - SAMPLES // 2
      window = samples[reflect(np.arange(first, first + SAMPLES), len(samples))]
      self._interpreter.set_tensor(self._input, window.astype(np.float32))
      self._interpreter.invoke()
      scores[i] = self._interpreter.get_tensor(self._output)[0]
    return scores


def stage_scores(
  item: Item, clips: Sequence[ScoredClip], tagger: Path, folder: Path, settings: MediaSettings, limits: Limits
) -> str:
  """Stages the scores (n, classes) of an item's clips as the array `scores`; returns the reason for a failure, or "".

  Call this function by `stajax.media.limits.run_in_children`, where time and memory are limited.

  Raises:
    YamnetError: The file cannot be used, see `Yamnet`.
    OSError: The staging folder cannot be written to.
  """
  try:
    samples = decode_item_sound(item, limits)
  except MediaError as error:
    return str(error).removeprefix(f"{item.path}: ")
  staging, yamnet = Staging(folder), _opened(tagger)
  for clip in clips:
    heard = cut_segment_sound(samples, clip.start, clip.start + clip.num_frames, clip.is_last, settings.rate)
    columns = max(0, len(heard) - SEGMENT) // HOP + 1 if len(heard) else 0
    if columns != clip.num_columns:
      return (
        f"its sound has {columns} spectrogram columns, but {clip.num_columns} in the records: has the file changed?"
      )
    scores = yamnet.scores(heard, np.arange(clip.num_frames) / settings.rate)
    staging.write_arrays(clip.key, scores=scores)
  return ""


@functools.cache
def _opened(path: Path) -> Yamnet:
  return Yamnet(path)
