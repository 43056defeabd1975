"""The scores that an off-the-shelf sound tagger gave a data set, in the folder `class_scores` beside its records.

  classes.txt     the tagger's classes, one in each line
  scores.npy      (frames, classes) float16 in [0, 1], in the order of the frame ids; 0 for clips without sound
  summary.json    the tagger and the clips

`stajax prepare … --tagger FILE` writes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stajax.data.shards import RecordError
from stajax.files import read_json

FOLDER = "class_scores"


@dataclass(frozen=True)
class ClassScores:
  """The scores beside a data set's records.

  Attributes:
    path: The folder of the scores.
    classes: The names of the tagger's classes.
    sha256: The SHA-256 of the tagger.
    summary: The content of `summary.json`.
  """

  path: Path
  classes: tuple[str, ...]
  sha256: str
  summary: dict[str, Any]
  _scores: np.ndarray
  _begins: dict[str, int]

  @staticmethod
  def open(records: Path) -> ClassScores:
    """Opens the scores beside the records in a folder; they stay on disk.

    Raises:
      RecordError: They are missing or damaged.
    """
    path = records / FOLDER
    if not path.is_dir():
      hint = "to write them, repeat the `stajax prepare` command that made these records, with --tagger FILE"
      raise RecordError(f"{path}: no such folder; {hint}")
    try:
      summary = read_json(path / "summary.json")
      classes = tuple((path / "classes.txt").read_text(encoding="utf-8").splitlines())
      scores = np.load(path / "scores.npy", mmap_mode="r", allow_pickle=False)
      sha256, lengths = str(summary["sha256"]), [int(length) for length in summary["clips"].values()]
      if scores.shape != (sum(lengths), len(classes)) or scores.dtype != np.float16:
        found = f"scores {scores.dtype} {scores.shape}"
        raise ValueError(f"{found}, expected float16 ({sum(lengths)}, {len(classes)})")
    except (OSError, ValueError, EOFError, OverflowError, KeyError, TypeError, AttributeError) as error:
      raise RecordError(f"{path}: not the scores of a tagger ({error})") from error
    begins = dict(zip(summary["clips"], (np.cumsum(lengths) - lengths).tolist(), strict=True))
    return ClassScores(path, classes, sha256, summary, scores, begins)

  def clip_scores(self, name: str, num_frames: int) -> np.ndarray:
    """Returns the scores (n, classes) float32 of a clip of n frames.

    Raises:
      RecordError: The scores were made for other records.
    """
    found = self.summary["clips"].get(name)
    if found != num_frames:
      there = "no such clip" if found is None else f"{found} frames"
      expected = f"expected {num_frames} frames of {name}"
      raise RecordError(f"{self.path}: has {there}, {expected}; these are the scores of other records")
    begin = self._begins[name]
    return np.asarray(self._scores[begin : begin + num_frames], np.float32)
