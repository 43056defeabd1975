"""The pixels with which shuffled AUC compares the fixations of a frame: what viewers looked at elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stajax.eyetracking import StavisVideo
from stajax.scoring import protocol
from stajax.scoring.protocols import PROTOCOLS

_NUM_FRAMES = 10
"""How many random frames DHF1K's evaluation takes."""


@dataclass(frozen=True)
class VideoFixations:
  """All fixations of a video.

  Attributes:
    size: (height, width) of its frames.
    positions: Positions in the flattened frame, by 0-based frame.
  """

  size: tuple[int, int]
  positions: dict[int, np.ndarray]

  def scaled(self, positions: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns positions (k,) of this video as positions in frames of another size."""
    if size == self.size:
      return positions
    at = np.divmod(positions.astype(np.int64), self.size[1])
    rows, columns = (((2 * x + 1) * to) // (2 * n) for x, n, to in zip(at, self.size, size))
    return rows * size[1] + columns


@dataclass(frozen=True)
class Others:
  """What the frames of one video are compared with.

  Attributes:
    positions: The positions for every frame (k,), ascending and distinct unless repeated ones count; None if they
      differ by frame.
    frames: All frames of the set, as (video, 0-based frame), from which those of one frame are drawn.
    size: (height, width) of the video's frames.
    seed: The settings' seed, and the names that a frame's own seed is made of.
  """

  positions: np.ndarray | None
  frames: list[tuple[VideoFixations, int]]
  size: tuple[int, int]
  seed: tuple[int, str, str]

  @classmethod
  def of(
    cls,
    video: StavisVideo,
    fixations: VideoFixations,
    sets: Mapping[tuple[str, str], VideoFixations],
    settings: protocol.Settings,
  ) -> "Others":
    """Finds what the settings' protocol compares the fixations of a video with; `sets` has all videos by name."""
    kind, frames = PROTOCOLS[settings.protocol].negatives, []
    positions = None
    if kind == "video":
      positions = np.unique(np.concatenate(list(fixations.positions.values())))
    elif kind == "dataset":
      parts = [
        other.scaled(x, fixations.size)
        for (database, name), other in sorted(sets.items(), key=lambda item: item[0])
        if database == video.database and name != video.name
        for x in other.positions.values()
      ]
      positions = np.concatenate([np.empty(0, np.int64), *parts])
    else:
      members = sorted((key, x) for key, x in sets.items() if key[0] == video.database)
      frames = [(other, i) for _, other in members for i in sorted(other.positions)]
    return cls(positions, frames, fixations.size, (settings.seed, video.database, video.name))

  def at(self, frame: int) -> np.ndarray:
    """Returns the positions for a 0-based frame; its own fixations may be among them."""
    if self.positions is not None:
      return self.positions
    rng = np.random.default_rng([protocol.frame_seed(*self.seed, frame), 1])
    drawn = rng.choice(len(self.frames), min(_NUM_FRAMES, len(self.frames)), replace=False)
    chosen = (self.frames[k] for k in sorted(drawn.tolist()))
    return np.unique(np.concatenate([video.scaled(video.positions[i], self.size) for video, i in chosen]))
