"""Long-term companions for videos of any length: a few fragments from all over a video, which all windows share.

A window holds only a few seconds, so without these a target's long companions would all be from the same ones.
"""

# pyright: reportUnknownMemberType=false
# JAX annotates its functions in part.

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from stajax import companions
from stajax.inference.clip import Clip, Sample, joined
from stajax.inference.dense import DenseNetwork, take
from stajax.media.keyframes import RUN, sampled_runs
from stajax.media.sound_windows import SoundWindows
from stajax.media.video import MediaInfo

SIZE = 32
"""The number of fragments in a reservoir."""


@dataclass(frozen=True)
class Fragments:
  """What a reservoir holds.

  Attributes:
    runs: The three samples of each fragment, of which only the middle one needs sound.
    at: The number of each middle sample in its video, ascending.
  """

  runs: list[list[Sample]]
  at: np.ndarray


class Reservoir:
  """The fragments of one video, which are read when a window first needs them, encoded once, and dropped.

  Args:
    read: A function that finds the fragments; fewer than two are not used.
    with_switch: A function that returns a clip with its audio switch set.
  """

  def __init__(self, read: Callable[[], Fragments], with_switch: Callable[[Clip], Clip]) -> None:
    self._read, self._with_switch = read, with_switch
    self._at: np.ndarray | None = None
    self._runs: list[list[Sample]] = []
    self._nodes: dict[bool, jax.Array] = {}

  def companions(self, seed: int, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """Draws two different fragments that are far enough away for each of a window's targets.

    Args:
      seed: The seed of the draw, whose key is (seed, number of the target in its video).
      clip: The window.

    Returns:
      The numbers of the fragments (n, 2), and (n,) whether there are two.
    """
    if self._at is None:
      found = self._read()
      self._at, self._runs = found.at, found.runs
    frames = clip.first + np.asarray(clip.targets)
    return companions.far_items(seed, frames, self._at, companions.LONG_GAP * clip.reach)

  def nodes(self, network: DenseNetwork, always_heard: bool, window: Clip) -> jax.Array:
    """Returns the fragments (SIZE, h, w, c) as a network sees them.

    Args:
      network: The network, which is the same for all windows.
      always_heard: Whether the audio switch is forced to 1.
      window: The window that needs them, on which the network, or another one of its model, has run.
    """
    if not self._nodes:
      # The number is always the same, so that programs fit: the last one stands for those that are missing.
      runs = joined([*self._runs, *self._runs[-1:] * (SIZE - len(self._runs))])
      # With a window's room, the programs of windows can be used; others would take more memory than larger buffers do.
      runs.capacity = window.used_capacity
      middles = jax.device_put(np.arange(RUN // 2, SIZE * RUN, RUN))
      for heard, clip in ((True, runs.with_all_heard()), (False, self._with_switch(runs))):
        self._nodes[heard] = take(network.nodes(clip), middles)
      self._runs = []  # large, and there is one network with long companions
    return self._nodes[always_heard]


def read_file_fragments(
  info: MediaInfo, sound: SoundWindows | None, rate: float, reach: int, side: int, seed: int
) -> Fragments:
  """Reads the fragments of a video file, see `stajax.media.keyframes`: few where the file has few keyframes.

  Args:
    info: The file.
    sound: Its sound, if it has any.
    rate: Samples a second.
    reach: The number of samples between the frames of a fragment.
    side: The side of the frames in pixels.
    seed: The seed of the choice.
  """
  runs = sampled_runs(info.path, info.origin, SIZE, reach / rate, side, seed)
  heard = None if sound is None else sound.again()
  fragments: list[list[Sample]] = []
  for time, (before, middle, after) in runs:
    fragments.append([(before, None), (middle, None if heard is None else heard.window(time).copy()), (after, None)])
  return Fragments(fragments, np.array([round(time * rate) for time, _ in runs], np.int64))
