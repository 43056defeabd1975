"""The scores of videos, and their means over sets of videos."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from stajax.scoring import protocol
from stajax.scoring.protocols import PROTOCOLS

Sizes = dict[str, set[tuple[int, int]]]
"""The sizes (height, width) of maps by method."""


@dataclass(frozen=True)
class Moment:
  """A frame of a video with its map, to be shown.

  Attributes:
    frame: The frame, 0-based.
    score: Its NSS.
    prediction: Its map (h, w), uint8; large ones are thinned out.
  """

  frame: int
  score: float
  prediction: np.ndarray


@dataclass(frozen=True)
class VideoScores:
  """The scores of one video by one set of maps.

  Attributes:
    database: The name of the video's database.
    name: The video's name in it.
    split: The test list that these maps serve; 0 for all lists.
    entries: How many rows of those lists name the video: its weight in the mean.
    frames: The scored frames, (n,) int64, 0-based.
    num_requested: How many frames were to be scored: more than n where maps are missing.
    scores: {method: {metric: (n,) float64}}.
    map_sizes: The sizes of the maps by method.
    extremes: The frames that the maps from files, or a model's final map, score best and worst; empty for others.
  """

  database: str
  name: str
  split: int
  entries: int
  frames: np.ndarray
  num_requested: int
  scores: dict[str, dict[str, np.ndarray]]
  map_sizes: Sizes
  extremes: tuple[Moment, ...] = ()


@dataclass(frozen=True)
class Evaluation:
  """The scores of all videos frame by frame, and what is needed to interpret them.

  Attributes:
    videos: The scored videos.
    skipped: The (database, video, reason) of each video that could not be scored.
    settings: Which frames were scored, and how they are averaged.
    groups: Subsets of videos that are sets of their own: {"<database>/<subset>": video names}.
    notes: Lines for people about the data and the maps.
  """

  videos: tuple[VideoScores, ...]
  skipped: tuple[tuple[str, str, str], ...]
  settings: protocol.Settings
  groups: Mapping[str, Collection[str]] = field(default_factory=dict)
  notes: tuple[str, ...] = ()

  @property
  def methods(self) -> list[str]:
    """The names of all methods, in order."""
    return list(dict.fromkeys(method for video in self.videos for method in video.scores))

  @property
  def map_sizes(self) -> dict[str, list[list[int]]]:
    """The sizes [height, width] of the maps of every method, sorted."""
    sizes: Sizes = {}
    for video in self.videos:
      for method, found in video.map_sizes.items():
        sizes.setdefault(method, set()).update(found)
    return {method: [list(size) for size in sorted(found)] for method, found in sizes.items()}

  def sets(self) -> dict[str, list[VideoScores]]:
    """Returns the videos of every set: each database, then its groups. Sets without a scored video are left out."""
    sets: dict[str, list[VideoScores]] = {}
    for database in dict.fromkeys(video.database for video in self.videos):
      members = [video for video in self.videos if video.database == database]
      sets[database] = members
      for group, names in self.groups.items():
        if group.startswith(database + "/"):
          sets[group] = [video for video in members if video.name in set(names)]
    return {name: videos for name, videos in sets.items() if videos}

  def video_score(self, video: VideoScores, method: str, metric: str) -> float:
    """Returns the mean over the video's frames; NaN if it is undefined."""
    return protocol.average_frames(video.scores[method][metric], self.settings.nan_policy)

  def set_scores(self) -> dict[str, dict[str, dict[str, float]]]:
    """Returns {set: {method: {metric: score}}}, NaN where undefined."""
    return {
      name: {
        method: {metric: self._set_score(videos, method, metric) for metric in self.settings.metrics}
        for method in self.methods
        if any(method in video.scores for video in videos)
      }
      for name, videos in self.sets().items()
    }

  def _set_score(self, videos: list[VideoScores], method: str, metric: str) -> float:
    videos = [video for video in videos if method in video.scores]
    if PROTOCOLS[self.settings.protocol].average == "frames":
      frames = [video.scores[method][metric] for video in videos for _ in range(video.entries)]
      return protocol.average_frames(np.concatenate([*frames, np.empty(0)]), self.settings.nan_policy)
    values = [self.video_score(video, method, metric) for video in videos]
    return protocol.average_videos(np.array(values), np.array([video.entries for video in videos]))
