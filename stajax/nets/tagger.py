"""The audio-only tagger: categories from a second of sound, the labels of the audio switch (paper §3.3).

Axes: b batch, n nodes, c categories.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from stajax.nets.base import AudioVisualModule
from stajax.nets.classifier import Classification


class Tagger(AudioVisualModule):
  """The audio backbone and a linear classifier; its `sound` is that of SA, so either can start from the other."""

  @property
  def num_times(self) -> int:
    return 0

  @property
  def backbone_stages(self) -> tuple[str, ...]:
    return ()

  def setup(self) -> None:
    super().setup()
    self.classify = nn.Dense(self.num_categories, dtype=self.sizes.dtype)

  def __call__(self, sound: jax.Array, train: bool = False) -> Classification:
    """Classifies the target's sound: (b, n, 257, s) to logits (b, c); there are no class maps."""
    logits = self.classify(self.encode_sound(sound[:, 0], train)).astype(jnp.float32)
    return Classification(None, logits, logits[:, None])
