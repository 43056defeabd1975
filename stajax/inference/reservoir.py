"""Long-term companions for videos of any length: a few fragments from all over a video, for all of its windows.

A window holds its neighbours only, so that without these a target's long companions are of the same few seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from stajax import companions
from stajax.inference.clip import Clip, Sample, in_buffers_of, joined
from stajax.inference.dense import DenseNetwork
from stajax.media.keyframes import RUN, sampled_runs
from stajax.media.sound_windows import SoundWindows
from stajax.media.video import MediaInfo

SIZE = 32
"""Fragments of a reservoir."""


@dataclass(frozen=True)
class Fragments:
  """What a reservoir holds.

  Attributes:
    runs: of each fragment its three samples, of which only the middle one needs sound.
    at: number of the middle sample in its video, ascending.
  """

  runs: list[list[Sample]]
  at: np.ndarray


class Reservoir:
  """The fragments of one video, which are read when a window first needs them, encoded once, and dropped.

  Args:
    read: finds them; fewer than two are no reservoir.
    with_switch: the clip with its audio switch set.
  """

  def __init__(self, read: Callable[[], Fragments], with_switch: Callable[[Clip], Clip]) -> None:
    self._read, self._with_switch = read, with_switch
    self._at: np.ndarray | None = None
    self._runs: list[list[Sample]] = []
    self._nodes: dict[bool, jax.Array] = {}

  def companions(self, seed: int, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """Of a window's targets two different fragments (n, 2) that are far enough away, and (n,) whether there are two.

    Args:
      seed: of the draw, whose key is (seed, number of the target in its video).
    """
    if self._at is None:
      found = self._read()
      self._at, self._runs = found.at, found.runs
    frames = clip.first + np.asarray(clip.targets)
    return companions.far_items(seed, frames, self._at, companions.LONG_GAP * clip.reach)

  def nodes(self, network: DenseNetwork, always_heard: bool, window: Clip) -> jax.Array:
    """The fragments (SIZE, h, w, c) as a network sees them, which is the same one for all windows.

    Args:
      window: that needs them, with its switch.
    """
    if not self._nodes:
      # Always as many, so that programs fit: the last one stands for those that are missing.
      runs = in_buffers_of(window, joined([*self._runs, *self._runs[-1:] * (SIZE - len(self._runs))]))
      middles = jax.device_put(np.arange(RUN // 2, SIZE * RUN, RUN))
      for heard, clip in ((True, runs.with_switch(np.ones(len(runs)))), (False, self._with_switch(runs))):
        self._nodes[heard] = _rows(network.nodes(clip), middles)
      self._runs = []  # large, and there is one network with long companions
    return self._nodes[always_heard]


def of_file(info: MediaInfo, sound: SoundWindows | None, rate: float, reach: int, side: int, seed: int) -> Fragments:
  """Those of a video file, see `stajax.media.keyframes`: few where the file has few keyframes.

  Args:
    sound: of the file.
    rate: samples a second.
    reach: samples between the frames of a fragment.
    side: of frames, pixels.
  """
  runs = sampled_runs(info.path, info.origin, SIZE, reach / rate, side, seed)
  heard = None if sound is None else sound.again()
  fragments = []
  for time, (before, middle, after) in runs:
    fragments.append([(before, None), (middle, None if heard is None else heard.window(time).copy()), (after, None)])
  return Fragments(fragments, np.array([round(time * rate) for time, _ in runs], np.int64))


@jax.jit
def _rows(x: jax.Array, at: jax.Array) -> jax.Array:
  return x[at]
