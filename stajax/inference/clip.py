"""Clips of videos: the samples that inference sees at once, and what has been computed from them.

A clip is a list of samples of one video, of a part of a long one (`windows`), or of several short ones (`joined`).
Axes: n samples of a clip.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import jax
import numpy as np

from stajax.grid import reflect
from stajax.media.spectrogram import NUM_BINS, WINDOW_COLUMNS, duration, normalise, window_columns
from stajax.senses import Sound

if TYPE_CHECKING:
  from stajax.data.records import Records  # needs libraries that prediction does without

Sample = tuple[np.ndarray, np.ndarray | None]
"""A frame (S, S, 3) uint8 and its normalised second of sound (257, 98) float32, None where there is none."""
Features = dict[str, dict[str, jax.Array]]
"""Buffers (capacity, …) on the device by their names, for every encoder."""

WINDOW, MARGIN = 128, 4
"""Targets of a clip that is part of a long video, and its neighbours in time to either side."""
SHORT_WINDOW = 48
"""The same where no network has companions, which are found in a window: thus fewer frames are held."""


@dataclass(frozen=True)
class Overlap:
  """The first samples of a window that are the last ones of the window before it.

  Attributes:
    features: The features of the window before.
    start: The number of the first common sample in the window before.
    count: The number of common samples.
  """

  features: Features
  start: int
  count: int


@dataclass
class Clip:
  """Successive samples of a video, and what has been computed from them.

  Attributes:
    samples: The samples in order of time.
    reach: The number of samples between the frames of a fragment, which are as far apart as on the grid.
    targets: The samples that results are wanted for; the others are their neighbours. By default all are targets.
    first: The number of the first sample in its video.
    switch: (n,) float32, whether each sample's sound is heard; by default where there is sound.
    boxes: (n, 4) float32, crops for networks that see crops: (y0, x0, y1, x1) in [0, 1].
    features: What encoders have computed; the copies of this clip share it.
    stored: Reads a stage (n, …) of a frozen backbone that is computed already, given the size of the frames, whether
      they are crops, and the stage's name.
    overlap: The samples that the window before has encoded.
    capacity: The most samples of any clip with which this one shares its programs; 0 if it shares them with none.
    starts: The samples that videos begin with; no sample has neighbours in another video.
    other_sound: For every sample the second of another video's sound, None where that is silent; empty if no maps with
      another sound are wanted.
    sound: Whose sound the samples have; the copies of this clip may differ in it.
    is_still: Whether the middle frame of a fragment stands for all of its frames.
  """

  samples: Sequence[Sample]
  reach: int = 1
  targets: range = range(0)
  first: int = 0
  switch: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
  boxes: np.ndarray | None = None
  features: Features = field(default_factory=dict[str, dict[str, jax.Array]])
  stored: Callable[[int, bool, str], np.ndarray] | None = None
  overlap: Overlap | None = None
  capacity: int = 0
  starts: tuple[int, ...] = (0,)
  other_sound: Sequence[np.ndarray | None] = ()
  sound: Sound = "own"
  is_still: bool = False

  def __post_init__(self) -> None:
    if not self.targets:
      self.targets = range(len(self.samples))
    if not self.switch.size:
      self.switch = self.has_sound.astype(np.float32)

  def __len__(self) -> int:
    return len(self.samples)

  @property
  def has_sound(self) -> np.ndarray:
    """Whether each sample has sound, (n,) bool."""
    return np.array([sound is not None for _, sound in self.samples], bool)

  @property
  def is_part(self) -> bool:
    """Whether its video, or one of its videos, has more samples before or after these."""
    return self.first > 0 or len(self.targets) < len(self)

  def bounds(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first sample of the video of each sample in `at` (…), and the number of samples of that video."""
    starts = np.asarray(self.starts)
    number = np.searchsorted(starts, at, "right") - 1
    return starts[number], np.diff(starts, append=len(self))[number]

  def neighbours(self, at: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Returns the samples (m, t) that are `offsets` (t,) away from samples `at` (m,), reflected at the video's ends."""
    begin, count = (x[:, None] for x in self.bounds(at))
    return begin + reflect(at[:, None] - begin + offsets, count)

  def with_switch(self, switch: np.ndarray) -> "Clip":
    """Returns the same clip with another switch (n,); a sample without sound stays unheard."""
    return replace(self, switch=np.where(self.has_sound, switch, 0).astype(np.float32))

  def with_all_heard(self) -> "Clip":
    """Returns the same clip with the switch on wherever there is sound."""
    return replace(self, switch=self.has_sound.astype(np.float32))


def windows(
  samples: Iterable[Sample],
  reach: int = 1,
  margin: int = MARGIN,
  length: int = WINDOW,
  other_sound: Iterable[np.ndarray | None] | None = None,
) -> Iterator[Clip]:
  """Divides a video of any length into clips of `length` targets with `margin` · `reach` neighbours to either side.

  The last clip has all remaining targets: up to `margin` · `reach` more, or fewer. A bounded number of samples is held.
  Frames that two windows share are encoded once, unless they are cropped. `other_sound` is that of `Clip`, for all
  samples.
  """
  margin *= reach
  others = itertools.repeat(None) if other_sound is None else other_sound
  iterator, first, begin = zip(samples, others), 0, 0
  held: list[tuple[Sample, np.ndarray | None]] = []
  overlap = capacity = None
  while True:
    wanted = begin + length + margin
    held = [*held, *itertools.islice(iterator, wanted - len(held))]
    is_last = len(held) < wanted
    end = len(held) if is_last else begin + length
    if begin == end:
      return
    if capacity is None:  # all windows get the room of the largest, so that they have the same programs
      capacity = 0 if is_last else length + 2 * margin
    clip = Clip([sample for sample, _ in held], reach, range(begin, end), first, overlap=overlap, capacity=capacity)
    if other_sound is not None:
      clip.other_sound = [other for _, other in held]
    yield clip
    if is_last:
      return
    dropped = max(end - margin, 0)
    overlap = Overlap(clip.features, dropped, len(held) - dropped)
    del clip  # and its samples, before others are read
    held, first, begin = held[dropped:], first + dropped, end - dropped


def joined(
  videos: Sequence[Sequence[Sample]], reach: int = 1, other_sounds: Iterable[Sequence[np.ndarray | None]] = ()
) -> Clip:
  """Joins short videos into one clip, so that they share batches; results are those of each by itself, in order.

  Args:
    videos: The samples of every video.
    reach: The number of samples between the frames of a fragment.
    other_sounds: `Clip.other_sound` of every video.
  """
  starts = np.cumsum([0, *map(len, videos[:-1])]).tolist()
  others = list(itertools.chain.from_iterable(other_sounds))
  samples = list(itertools.chain.from_iterable(videos))
  return Clip(samples, reach, starts=tuple(starts), other_sound=others)


def clip_samples(records: "Records", clip: int, size: int) -> list[Sample]:
  """Reads all samples of one clip of records, at the smallest stored size that is at least `size`."""
  frames = records.clip_frames(clip, size)
  return list(zip(frames, clip_sound(records, clip, np.arange(len(frames)) / records.rate[clip]), strict=True))


def clip_sound(records: "Records", clip: int, times: np.ndarray, loop: bool = False) -> list[np.ndarray | None]:
  """Reads the seconds of a clip's sound around times in seconds, (257, 98) float32, None where it has no sound.

  Past the end of the sound they are reflected; with `loop` the sound goes on from its beginning instead.
  """
  if not records.has_sound[clip]:
    return [None] * len(times)
  columns = records.clip_columns(clip).astype(np.float32)
  columns = normalise(columns, float(records.sound_mean[clip]), float(records.sound_std[clip]))
  count = columns.shape[1]
  return [columns[:, window_columns(time, count)] for time in (times % duration(count) if loop else times)]


def sounds(samples: Sequence[Sample]) -> np.ndarray:
  """Returns the seconds of sound of samples, (n, 257, 98); 0 where there is none."""
  found = np.zeros((len(samples), NUM_BINS, WINDOW_COLUMNS), np.float32)
  for i, (_, sound) in enumerate(samples):
    if sound is not None:
      found[i] = sound
  return found
