"""The audio-only tagger: categories from a second of sound, the labels of the audio switch (paper §3.3).

Axes: b batch, n nodes, m merged batch, f frequency bins, s spectrogram columns, c categories, d audio features.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from stajax.nets.audio import Pooling, ResNet18
from stajax.nets.classifier import Classification
from stajax.nets.layers import Norm


class Tagger(nn.Module):
  """The audio backbone and a linear classifier; its `sound` is that of SA, so either can start from the other.

  Attributes: as of `stajax.nets.classifier.Classifier`.
  """

  num_categories: int
  audio_width: float = 1.0
  audio_norm: Norm = "batch"
  audio_pooling: Pooling = "netvlad"
  dtype: Any = jnp.float32
  frozen: tuple[str, ...] = ()

  @property
  def num_nodes(self) -> int:
    """Fragments of a group."""
    return 1

  @property
  def num_times(self) -> int:
    """Frames of a fragment: it sees none."""
    return 0

  @property
  def hears(self) -> bool:
    return True

  def setup(self) -> None:
    self.sound = ResNet18(self.audio_width, self.audio_norm, self.audio_pooling, self.dtype)
    self.classify = nn.Dense(self.num_categories, dtype=self.dtype)

  def encode_sound(self, sound: jnp.ndarray, train: bool = False) -> jnp.ndarray:
    """(m, 257, s) normalised log-spectrograms to (m, d)."""
    return self.sound(sound, train and "sound" not in self.frozen)

  def __call__(self, sound: jnp.ndarray, train: bool = False) -> Classification:
    """(b, n, 257, s) to the logits (b, c) of the target's sound; there are no class maps."""
    logits = self.classify(self.encode_sound(sound[:, 0], train)).astype(jnp.float32)
    return Classification(None, logits, logits[:, None])
