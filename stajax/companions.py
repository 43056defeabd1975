"""Companions of a target fragment: short-term, long-term and cross-term (Sections 4.2 and 5.2 of the paper).

Every draw is a pure function of (seed, clip, frame), so it is the same in every epoch, batch and process, in training
and in inference. All functions are plain NumPy over arrays of targets.
Legend: C clips, c categories, … any shape of targets, P items of a pool, n frames of a clip.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from stajax.grid import reflect

Granularity = Literal["short", "long", "cross", "short_long"]
"""The kind of companions of a group; `short_long` stands for the two short ones followed by the two long ones."""

_SEED_BITS = 31  # of a configuration's seed, above which repeated draws are told apart
LONG_GAP = 4  # the frames on each side of the target that long companions avoid

_LONG, _TAG, _CLIPS, _FRAMES, _POOL_CLIP, _POOL_FRAME, _POOL_PAIR, _FAR = range(
  8
)  # parts of keys that make the draws independent


def num_nodes(granularity: Granularity | None) -> int:
  """Returns the number of fragments of a group: the target, and two companions of each kind."""
  return {None: 1, "short_long": 5}.get(granularity, 3)


def short_companions(frame: np.ndarray, num_frames: np.ndarray, spacing: int, number: int = 2) -> np.ndarray:
  """Returns the neighbouring fragments, reflected at the ends of the clip.

  Args:
    frame: (…) target frames, indices in their clips.
    num_frames: (…) frames of those clips.
    spacing: The number of frames between the middles of neighbouring fragments. Fragments touch if it is the number of
      their frames, so that S+ sees 3 frames in all, and ST+ 9.
    number: The number of companions.

  Returns:
    (…, number) int64 middle frames: the one before and the one after, then those beyond, from near to far.
  """
  steps = [sign * distance for distance in range(1, number + 1) for sign in (-spacing, spacing)][:number]
  return reflect(np.asarray(frame)[..., None] + np.asarray(steps), np.asarray(num_frames)[..., None])


def repeat_draw(draw: Callable[[int], np.ndarray], seed: int, number: int) -> np.ndarray:
  """Draws any number of companions, two at a time.

  Args:
    draw: A function of a seed that returns two companions (…, 2), such as `long_companions`.
    seed: The seed of the first two.
    number: The number of companions. The two of a draw differ; those of different draws may be the same.

  Returns:
    (…, number) int64.
  """
  pairs = [draw(seed + (pair << _SEED_BITS)) for pair in range(-(-number // 2))]
  return np.concatenate(pairs, axis=-1)[..., :number]


def long_companions(
  seed: int, clip: np.ndarray, frame: np.ndarray, num_frames: np.ndarray, gap: int = LONG_GAP
) -> np.ndarray:
  """Draws two different frames of the same clip that are more than `gap` frames from the target.

  If there are not two such frames, it returns the two other frames that are farthest from the target: in a clip of two
  frames the other one twice, and in a clip of one frame that frame twice.

  Args:
    seed: The seed of the draw.
    clip: (…) numbers of the clips, which are part of the draw's key.
    frame: (…) target frames.
    num_frames: (…) frames of the clips.
    gap: `LONG_GAP` on the frame grid, or more if the frames are closer in time.

  Returns:
    (…, 2) int64 frames.
  """
  clip, frame, num_frames = np.broadcast_arrays(clip, frame, num_frames)
  num_before = np.maximum(frame - gap, 0)
  number = num_before + np.maximum(num_frames - 1 - frame - gap, 0)
  drawn = _draw_two(number, number, True, seed, clip, frame, _LONG)
  skipped = (frame + gap + 1 - num_before)[..., None]
  drawn = np.where(drawn < num_before[..., None], drawn, drawn + skipped)
  return np.where((number >= 2)[..., None], drawn, _farthest(frame, num_frames))


class TagGroups:
  """The clips of each tag, for cross-term companions; its memory is proportional to the number of tags of all clips.

  Attributes:
    is_alone: (C,) bool, whether a clip shares none of its tags with another clip.
  """

  def __init__(self, tags: np.ndarray, num_frames: np.ndarray) -> None:
    """Sorts the clips by tag.

    Args:
      tags: (C, c), not 0 where a clip has the tag.
      num_frames: (C,) frames of the clips.
    """
    self._num_frames = np.asarray(num_frames, np.int64)
    num_clips, num_tags = np.shape(tags)
    clips, labels = np.nonzero(tags)  # one entry for each clip and tag, sorted by clip
    self._sizes = np.bincount(labels, minlength=num_tags)
    self._first_member = np.cumsum(self._sizes) - self._sizes
    order = np.argsort(labels, kind="stable")
    self._members = clips[order]  # sorted by tag
    places = np.empty_like(order)
    places[order] = np.arange(order.size)
    # The useful tags of a clip are those that two other clips have or, without any, those that one other clip has.
    sizes = self._sizes[labels]
    largest = np.zeros(num_clips, np.int64)
    np.maximum.at(largest, clips, sizes)
    useful = sizes >= np.clip(largest[clips], 2, 3)
    self._labels, self._places = labels[useful], (places - self._first_member[labels])[useful]
    self._num_choices = np.bincount(clips[useful], minlength=num_clips)
    self._first_choice = np.cumsum(self._num_choices) - self._num_choices
    self.is_alone: np.ndarray = self._num_choices == 0

  def cross_companions(self, seed: int, clip: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws one of the target's tags, two other clips that have it, and a frame of each.

    If only one other clip shares a tag, it draws two frames of that clip; a clip that is alone gets long companions.

    Args:
      seed: The seed of the draw.
      clip: (…) clips in [0, C).
      frame: (…) target frames.

    Returns:
      Clips (…, 2) int64 and frames (…, 2) int64 in them.
    """
    clip, frame = np.broadcast_arrays(np.asarray(clip, np.int64), np.asarray(frame, np.int64))
    clips = np.repeat(clip[..., None], 2, axis=-1)
    frames = long_companions(seed, clip, frame, self._num_frames[clip])
    has_partner = ~self.is_alone[clip]
    key = (seed, clip[has_partner], frame[has_partner])
    choice = self._first_choice[key[1]] + _draw(self._num_choices[key[1]], *key, _TAG)
    label, own = self._labels[choice], self._places[choice][:, None]
    num_others = self._sizes[label] - 1
    drawn = _draw_two(num_others, num_others, True, *key, _CLIPS)
    partners = self._members[self._first_member[label][:, None] + drawn + (drawn >= own)]
    first, second = partners.T
    clips[has_partner] = partners
    frames[has_partner] = _draw_two(self._num_frames[first], self._num_frames[second], first == second, *key, _FRAMES)
    return clips, frames


def pool_items(tags: np.ndarray, num_frames: np.ndarray, seed: int, size: int = 8) -> list[np.ndarray]:
  """Draws a few frames of every tag, from which inference takes cross-term companions.

  Args:
    tags: (C, c), not 0 where a clip has the tag.
    num_frames: (C,) frames of the clips.
    seed: The seed of the draw.
    size: The largest number of items for a tag.

  Returns:
    For each tag, (m, 2) int64: random clips that have the tag, and a frame of each. m is `size`, or the number of such
    clips if there are fewer.
  """
  pools = []
  for tag, has_tag in enumerate(np.transpose(tags)):
    clips = np.flatnonzero(has_tag)
    clips = clips[np.argsort(_hash(seed, clips, tag, _POOL_CLIP), kind="stable")[:size]]
    frames = _draw(np.asarray(num_frames)[clips], seed, clips, tag, _POOL_FRAME)
    pools.append(np.stack([clips, frames], axis=1))
  return pools


def pool_companions(seed: int, clip: int, frames: np.ndarray, pool_clips: np.ndarray) -> np.ndarray:
  """Draws two items of a pool, of two different other clips, for every target frame of a clip.

  Args:
    seed: The seed of the draw.
    clip: The target's clip, from which no item is taken; -1 if it does not belong to the pool's set.
    frames: (n,) target frames.
    pool_clips: (P,) The clips of those items that share a tag with the target's clip.

  Returns:
    (n, 2) int64 indices into the pool: the same item twice if there is only one other clip, and -1 if there is none.
  """
  others, items = np.unique(np.asarray(pool_clips, np.int64), return_index=True)  # a clip may appear for two tags
  items = items[others != clip]
  if items.size == 0:
    return np.full((len(frames), 2), -1)
  number = np.full(len(frames), items.size)
  return items[_draw_two(number, number, True, seed, clip, frames, _POOL_PAIR)]


def far_items(seed: int, frames: np.ndarray, items: np.ndarray, gap: int) -> tuple[np.ndarray, np.ndarray]:
  """Draws two different items of a video's reservoir that are more than `gap` frames away, for every target.

  Args:
    seed: The seed of the draw.
    frames: (n,) target frames of the video.
    items: (P,) frames of the items, ascending.
    gap: The frames on each side of the target that are avoided.

  Returns:
    (n, 2) int64 indices of items, and (n,) bool, whether there are two such items for a target.
  """
  before = np.searchsorted(items, frames - gap)
  near = np.searchsorted(items, frames + gap, "right") - before
  number = len(items) - near
  drawn = _draw_two(number, number, True, seed, frames, _FAR)
  return np.where(drawn < before[:, None], drawn, drawn + near[:, None]), number >= 2


def _farthest(frame: np.ndarray, num_frames: np.ndarray) -> np.ndarray:
  """Returns the two other frames (…, 2) that are farthest from the target, if there are two others."""
  last = num_frames - 1
  first = np.where(frame >= last - frame, 0, last)
  opposite, inner = last - first, np.abs(first - 1)
  second = np.where(np.abs(first - frame) - 1 > np.abs(opposite - frame), inner, opposite)
  second = np.where(second == frame, first, second)
  return np.stack([first, second], axis=-1)


def _draw_two(
  first_bound: np.ndarray, second_bound: np.ndarray, apart: bool | np.ndarray, *key: int | np.ndarray
) -> np.ndarray:
  """Draws integers (…, 2) below their bounds; they differ where `apart` asks for it and it is possible."""
  first = _draw(first_bound, *key, 0)
  second = _draw(second_bound - np.asarray(apart, np.int64), *key, 1)
  second += apart & (second >= first)
  return np.stack([first, np.minimum(second, np.maximum(second_bound - 1, 0))], axis=-1)


def _draw(bound: np.ndarray, *key: int | np.ndarray) -> np.ndarray:
  """Draws integers (…) int64 in [0, bound); 0 if the interval is empty. The bias of the remainder is bound / 2**64."""
  return (_hash(*key) % np.maximum(bound, 1).astype(np.uint64)).astype(np.int64)


def _hash(*key: int | np.ndarray) -> np.ndarray:
  """Returns 64 random bits (…) uint64 by SplitMix64's finaliser (Steele et al., 2014), chained over the integers."""
  state = np.asarray(0, np.uint64)
  with np.errstate(over="ignore"):  # the arithmetic is modulo 2**64
    for part in key:
      state = state + np.asarray(part).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
      state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
      state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
      state = state ^ (state >> np.uint64(31))
  return state
