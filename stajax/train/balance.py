"""Epochs in which a rare tag is drawn as often as a common one."""

import numpy as np

from stajax.data.records import Records


def balanced(items: np.ndarray, records: Records) -> np.ndarray:
  """Repeats frames so that every tag has the same share of an epoch, and every clip of a tag the same share of that.

  A clip with several tags counts for the one that has the fewest clips, so that a tag which many clips have beside
  another one does not make the other one rarer. Clips without a tag count for one more tag.

  Args:
    items: The frame ids (m,) of an epoch, each once.
    records: The clips.

  Returns:
    (M,) frame ids in the same order. Each is there at least once, and M is at most the number that makes the most
    frequent frames appear once, rounded by at most one for each frame.
  """
  clip = records.clip_of_frame[items]
  used, frames = np.unique(clip, return_counts=True)
  tags = records.tags[used] > 0
  clips_of_tag = np.where(tags, tags.sum(axis=0), np.inf)
  tag = np.where(tags.any(axis=1), clips_of_tag.argmin(axis=1), tags.shape[1])
  clips = np.bincount(tag)[tag]
  wanted = np.zeros(records.num_clips)
  wanted[used] = 1 / (clips * frames)
  share = wanted[clip]
  # The n-th frame ends at `ends[n]` of a line on which the smallest share has the length 1: it is repeated as often as
  # an integer lies on its part.
  ends = np.cumsum(share / share.min())
  counts = np.diff(np.floor(ends + 0.5), prepend=0).astype(np.int64)
  return np.repeat(items, np.maximum(counts, 1))
