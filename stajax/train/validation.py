"""Validation clips: no network learns from them, so that settings can be chosen by how the networks do on them."""

import numpy as np


def choose_clips(tags: np.ndarray, share: float, seed: int) -> np.ndarray:
  """Chooses a part of every tag's clips, at least one of two or more; each tag keeps a clip to learn from.

  Args:
    tags: Not 0 where a clip has the tag, (C, c).
    share: The part of the clips to choose; 0 for none.
    seed: The seed of the choice.

  Returns:
    Whether each clip is chosen, (C,) bool.
  """
  has = np.asarray(tags) > 0
  chosen = np.zeros(len(has), bool)
  if share == 0:
    return chosen
  order, remaining = np.random.default_rng(seed).permutation(len(has)), has.sum(axis=0)
  for tag, count in enumerate(has.sum(axis=0)):
    wanted = max(1, round(share * count)) - int(chosen[has[:, tag]].sum())
    for clip in order[has[order, tag] & ~chosen[order]]:
      if wanted > 0 and (remaining[has[clip]] > 1).all():
        chosen[clip], wanted = True, wanted - 1
        remaining -= has[clip]
  return chosen
