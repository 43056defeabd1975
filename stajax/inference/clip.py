"""Clips of videos: the samples that inference sees at once, and what is computed of them.

A clip is a list of samples of one video, of a part of a long one (`windows`), or of several short ones (`joined`).
Axes: n samples of a clip.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from stajax.grid import reflect
from stajax.media.spectrogram import NUM_BINS, WINDOW_COLUMNS, normalise, window_columns

Sample = tuple[np.ndarray, np.ndarray | None]
"""A frame (S, S, 3) uint8 and its normalised second of sound (257, 98) float32, None where there is none."""

WINDOW = 128
"""Targets of a clip that is part of a long video."""


@dataclass
class Clip:
  """Successive samples of a video, and what was computed of them.

  Attributes:
    samples: in order of time.
    reach: samples between the frames of a fragment, as the grid has them.
    targets: those that results are wanted for; others are their neighbours. All by default.
    first: number of the first sample in its video.
    switch: (n,) float32, whether each sample's sound is heard; by default where there is sound.
    boxes: (n, 4) float32, crops for networks that see crops: (y0, x0, y1, x1) in [0, 1].
    features: by encoder, (capacity, …) arrays on the device; shared by the copies of this clip.
    stored: of a size, whether of crops, and a stage's name: that stage (n, …) of a frozen backbone, already computed.
    starts: the samples that a video begins with; the samples of other videos are nobody's neighbours.
  """

  samples: Sequence[Sample]
  reach: int = 1
  targets: range = range(0)
  first: int = 0
  switch: np.ndarray | None = None
  boxes: np.ndarray | None = None
  features: dict[str, dict[str, jax.Array]] = field(default_factory=dict)
  stored: Callable[[int, bool, str], np.ndarray] | None = None
  carried: tuple[dict[str, dict[str, jax.Array]], int, int] | None = None  # features of the window before: from, to
  starts: tuple[int, ...] = (0,)

  def __post_init__(self) -> None:
    if not self.targets:
      self.targets = range(len(self.samples))
    if self.switch is None:
      self.switch = np.array([sound is not None for _, sound in self.samples], np.float32)

  def __len__(self) -> int:
    return len(self.samples)

  @property
  def is_part(self) -> bool:
    """Whether its video, or videos, go on before or after its samples."""
    return self.first > 0 or len(self.targets) < len(self)

  def bounds(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of samples (…): the first sample (…) of each one's video, and how many its video has (…)."""
    starts = np.asarray(self.starts)
    number = np.searchsorted(starts, at, "right") - 1
    return starts[number], np.diff(starts, append=len(self))[number]

  def neighbours(self, at: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The samples (m, t) that are `offsets` (t,) away from samples `at` (m,), reflected at their video's ends."""
    begin, count = (x[:, None] for x in self.bounds(at))
    return begin + reflect(at[:, None] - begin + offsets, count)

  def with_switch(self, switch: np.ndarray) -> "Clip":
    """The same clip with another switch, (n,); sound that is not there stays unheard."""
    heard = np.array([sound is not None for _, sound in self.samples])
    return replace(self, switch=np.where(heard, switch, 0).astype(np.float32))


def windows(samples: Iterable[Sample], reach: int = 1, margin: int = 4, length: int = WINDOW) -> Iterator[Clip]:
  """A video of any length as clips of `length` targets with `margin` · `reach` neighbours to either side.

  The last clip has what is left: up to its neighbours' number more, or less. A bounded number of samples is held.
  Frames that two windows share are encoded once, but for crops.
  """
  margin *= reach
  iterator, held, first, begin = iter(samples), [], 0, 0
  carried = None
  while True:
    wanted = begin + length + margin
    held = [*held, *itertools.islice(iterator, wanted - len(held))]
    is_last = len(held) < wanted
    end = len(held) if is_last else begin + length
    if begin == end:
      return
    clip = Clip(held, reach, range(begin, end), first, carried=carried)
    yield clip
    if is_last:
      return
    dropped = max(end - margin, 0)
    carried = (clip.features, dropped, len(held))
    del clip  # and its samples, before others are read
    held, first, begin = held[dropped:], first + dropped, end - dropped


def in_buffers_of(window: Clip, clip: Clip) -> Clip:
  """The clip, which is not longer, in buffers as large as those of a window that a network has run on.

  Programs that are compiled for the window then serve the clip, too: they take much more memory than small buffers.
  """
  capacity = len(jax.tree.leaves(window.features)[0])
  return replace(clip, carried=({"": {"": np.empty((capacity, 0))}}, 0, 0))


def joined(videos: Sequence[Sequence[Sample]], reach: int = 1) -> Clip:
  """Short videos as one clip, so that they share batches; results are those of each by itself, one after the other."""
  starts = np.cumsum([0, *map(len, videos[:-1])]).tolist()
  return Clip([sample for samples in videos for sample in samples], reach, starts=tuple(starts))


def clip_samples(records: Any, clip: int, size: int) -> list[Sample]:
  """All samples of one clip of `stajax.data.records.Records`, at the smallest stored size that is at least `size`."""
  frames = records.clip_frames(clip, size)
  if not records.has_sound[clip]:
    return [(frame, None) for frame in frames]
  columns = records.clip_columns(clip).astype(np.float32)
  columns = normalise(columns, float(records.sound_mean[clip]), float(records.sound_std[clip]))
  times = np.arange(len(frames)) / records.rate[clip]
  return [(frame, columns[:, window_columns(time, columns.shape[1])]) for frame, time in zip(frames, times)]


def sounds(samples: Sequence[Sample]) -> np.ndarray:
  """The seconds of sound of samples, (n, 257, 98); 0 where there is none."""
  found = np.zeros((len(samples), NUM_BINS, WINDOW_COLUMNS), np.float32)
  for i, (_, sound) in enumerate(samples):
    if sound is not None:
      found[i] = sound
  return found
