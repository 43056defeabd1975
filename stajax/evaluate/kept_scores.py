"""The scores of single videos while an evaluation is under way, so that it can be stopped and shared by processes.

  OUT/.scores/KEY/…npz    one file for each video, written atomically; KEY stands for the model and the settings

A video's scores count only while its files in the tree are as they were. When all videos have their scores, whoever
finds this first writes the results and removes the folder.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stajax.data.staging import Staging, pack_json, unpack_json
from stajax.eyetracking import StavisVideo
from stajax.files.manifest import sha256_of_json
from stajax.scoring.results import Moment, VideoScores
from stajax.scoring.videos import Outcome, VideoKey

FOLDER = ".scores"


@dataclass(frozen=True)
class KeptScores:
  """The outcomes of videos by one model with one kind of settings; see `stajax.scoring.videos.Kept`.

  Attributes:
    folder: The folder of their files.
  """

  folder: Path

  @staticmethod
  def open(out: Path, identity: Mapping[str, Any]) -> "KeptScores":
    """Opens the outcomes in a folder for results.

    Args:
      out: The folder for the results.
      identity: Whatever scores depend on beside the videos, as JSON values.
    """
    for left in (out / FOLDER).glob("*.done"):  # by a process that was killed
      shutil.rmtree(left, ignore_errors=True)
    return KeptScores(out / FOLDER / sha256_of_json(identity)[:16])

  def load(self, video: StavisVideo) -> Outcome | None:
    """Returns the outcome of a video, None if it is not there, or if the video's files have changed since."""
    if not (self.folder / f"{_key(video)}.npz").is_file():
      return None
    try:
      arrays = Staging(self.folder).read_arrays(_key(video))
    except ValueError:  # it was damaged, or another process has removed it
      return None
    about = unpack_json(arrays["about"])
    if about["files"] != _stamp(video):
      return None
    if "reason" in about:
      return str(about["reason"])
    return [_unpack(video, row, arrays, i) for i, row in enumerate(about["rows"])]

  def save(self, video: StavisVideo, outcome: Outcome) -> None:
    """Writes the outcome of a video atomically."""
    about: dict[str, Any] = {"files": _stamp(video)}
    arrays: dict[str, np.ndarray] = {}
    if isinstance(outcome, str):
      about["reason"] = outcome
    else:
      about["rows"] = [_describe(scores) for scores in outcome]
      for i, scores in enumerate(outcome):
        arrays[f"frames_{i}"] = scores.frames
        arrays[f"scores_{i}"] = np.array(
          [[row[metric] for metric in _metrics_of(scores)] for row in scores.scores.values()]
        )
        arrays |= {f"map_{i}_{k}": moment.prediction for k, moment in enumerate(scores.extremes)}
    Staging(self.folder).write_arrays(_key(video), about=pack_json(about), **arrays)

  def load_all(self, videos: Sequence[StavisVideo]) -> dict[VideoKey, Outcome]:
    """Returns the outcomes that are there."""
    found = {(video.database, video.name): self.load(video) for video in videos}
    return {key: outcome for key, outcome in found.items() if outcome is not None}

  def remove(self) -> None:
    """Removes all outcomes, for other processes at once."""
    done = self.folder.with_name(f"{self.folder.name}.{uuid.uuid4().hex}.done")
    with contextlib.suppress(FileNotFoundError):  # another process has done it
      os.rename(self.folder, done)
      shutil.rmtree(done, ignore_errors=True)
    with contextlib.suppress(OSError):  # it has outcomes of other settings
      self.folder.parent.rmdir()


def _describe(scores: VideoScores) -> dict[str, Any]:
  sizes = {method: sorted(map(list, found)) for method, found in scores.map_sizes.items()}
  return {
    "split": scores.split,
    "entries": scores.entries,
    "num_requested": scores.num_requested,
    "methods": list(scores.scores),
    "metrics": _metrics_of(scores),
    "sizes": sizes,
    "extremes": [[moment.frame, moment.score] for moment in scores.extremes],
  }


def _metrics_of(scores: VideoScores) -> list[str]:
  return list(next(iter(scores.scores.values())))


def _unpack(video: StavisVideo, row: Mapping[str, Any], arrays: Mapping[str, np.ndarray], i: int) -> VideoScores:
  of_methods = zip(row["methods"], arrays[f"scores_{i}"], strict=True)
  return VideoScores(
    video.database,
    video.name,
    row["split"],
    row["entries"],
    arrays[f"frames_{i}"],
    row["num_requested"],
    {method: dict(zip(row["metrics"], of, strict=True)) for method, of in of_methods},
    {method: {(height, width) for height, width in found} for method, found in row["sizes"].items()},
    tuple(Moment(frame, nss, arrays[f"map_{i}_{k}"]) for k, (frame, nss) in enumerate(row.get("extremes", []))),
  )


def _key(video: StavisVideo) -> str:
  return sha256_of_json([video.database, video.name])[:32]


def _stamp(video: StavisVideo) -> str:
  """Returns a digest of the sizes and times of a video's files."""
  paths = [*video.frame_paths, *video.fixation_paths.values(), *video.density_paths.values()]
  if video.sound is not None:
    paths.append(video.sound)
  stamps: list[Any] = []
  for path in paths:
    try:
      found = path.stat()
    except OSError:
      stamps.append([str(path), None])
    else:
      stamps.append([str(path), found.st_size, found.st_mtime_ns])
  return sha256_of_json([stamps, video.entries, video.fps])
