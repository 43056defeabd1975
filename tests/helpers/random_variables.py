"""Random arrays in place of a network's variables."""

from typing import Any

import jax
import numpy as np


def randomise(shapes: Any, seed: int = 0) -> Any:
  """Returns random arrays of the shapes: no activation dies or explodes, and no normalisation is the identity."""
  rng = np.random.default_rng(seed)

  def fill(path: tuple, leaf: Any) -> np.ndarray:
    match path[-1].key:
      case "kernel":
        x = rng.normal(size=leaf.shape) * (2 / max(1, np.prod(leaf.shape[:-1]))) ** 0.5
      case "scale" | "var" | "centroids":
        x = rng.uniform(0.5, 1.5, leaf.shape)
      case _:
        x = rng.normal(0, 0.2, leaf.shape)
    return x.astype(np.float32)

  return jax.tree.map_with_path(fill, shapes)
