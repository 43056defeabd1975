"""Clips that no network learns from, so that settings can be chosen by how the networks do on them."""

import numpy as np


def choose(tags: np.ndarray, share: float, seed: int) -> np.ndarray:
  """A part of every tag's clips, at least one of two or more; each tag keeps a clip to learn from.

  Args:
    tags: (C, c), not 0 where a clip has the tag.
    share: of the clips; 0 for none.
    seed: of the choice.

  Returns:
    (C,) bool, the chosen clips.
  """
  has = np.asarray(tags) > 0
  chosen = np.zeros(len(has), bool)
  if share == 0:
    return chosen
  order, kept = np.random.default_rng(seed).permutation(len(has)), has.sum(axis=0)
  for tag, count in enumerate(has.sum(axis=0)):
    wanted = max(1, round(share * count)) - int(chosen[has[:, tag]].sum())
    for clip in order[has[order, tag] & ~chosen[order]]:
      if wanted > 0 and (kept[has[clip]] > 1).all():
        chosen[clip], wanted = True, wanted - 1
        kept -= has[clip]
  return chosen
