"""Long-term companions for videos of any length: a few fragments from all over a video, which all windows share.

A window holds only a few seconds, so without these a target's long companions would all be from the same ones.
"""

# pyright: reportUnknownMemberType=false
# JAX annotates its functions in part.

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jax
import numpy as np

from stajax import companions
from stajax.inference.clip import Clip, Sample, joined
from stajax.inference.dense import DenseNetwork, take
from stajax.inference.senses import Condition
from stajax.media.isolated import sampled_runs
from stajax.media.keyframes import RUN
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
    other_sound: `Clip.other_sound` of each middle sample; empty if no maps with another sound are wanted.
  """

  runs: list[list[Sample]]
  at: np.ndarray
  other_sound: list[np.ndarray | None] = field(default_factory=list[np.ndarray | None])


class Reservoir:
  """The fragments of one video, which are read when a window first needs them, encoded once, and dropped.

  Args:
    read: A function that finds the fragments; fewer than two are not used.
    show: A function that returns a clip as it is shown to networks under every condition that will be asked for, with
      its audio switch set.
  """

  def __init__(self, read: Callable[[], Fragments], show: Callable[[Clip], Mapping[Condition, Clip]]) -> None:
    self._read, self._show = read, show
    self._found: Fragments | None = None
    self._at = np.zeros(0, np.int64)
    self._nodes: dict[Condition, jax.Array] = {}

  def companions(self, seed: int, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """Draws two different fragments that are far enough away for each of a window's targets.

    Args:
      seed: The seed of the draw, whose key is (seed, number of the target in its video).
      clip: The window.

    Returns:
      The numbers of the fragments (n, 2), and (n,) whether there are two.
    """
    if self._found is None and not self._nodes:
      self._found = self._read()
      self._at = self._found.at
    frames = clip.first + np.asarray(clip.targets)
    return companions.far_items(seed, frames, self._at, companions.LONG_GAP * clip.reach)

  def nodes(self, network: DenseNetwork, condition: Condition, window: Clip) -> jax.Array:
    """Returns the fragments (SIZE, h, w, c) as a network sees them.

    Args:
      network: The network, which is the same for all windows.
      condition: How they are shown to the network.
      window: The window that needs them, on which the network, or another one of its model, has run.
    """
    if not self._nodes:
      assert self._found is not None, "`companions` has read them"
      runs = _join_fragments(self._found)
      # With a window's room, the programs of windows can be used; others would take more memory than larger buffers do.
      runs.capacity = window.capacity
      middles = network.put(np.arange(RUN // 2, SIZE * RUN, RUN))
      self._nodes = {shown: take(network.nodes(clip), middles) for shown, clip in self._show(runs).items()}
      self._found = None  # large, and there is one network with long companions
    return self._nodes[condition]


def _join_fragments(found: Fragments) -> Clip:
  """Joins `SIZE` fragments into a clip: as many always, so that programs fit. The last stands for missing ones."""
  missing = SIZE - len(found.runs)
  others = [*found.other_sound, *found.other_sound[-1:] * missing]
  return joined([*found.runs, *found.runs[-1:] * missing], other_sounds=[(None, other, None) for other in others])


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
  runs = sampled_runs(info.path, SIZE, reach / rate, side, seed)
  heard = None if sound is None else sound.again()
  fragments: list[list[Sample]] = []
  for time, (before, middle, after) in runs:
    fragments.append([(before, None), (middle, None if heard is None else heard.window(time).copy()), (after, None)])
  return Fragments(fragments, np.array([round(time * rate) for time, _ in runs], np.int64))
