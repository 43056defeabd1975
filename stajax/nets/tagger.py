"""The audio-only tagger: categories from a second of sound, the labels of the audio switch (paper §3.3).

Axes: b batch, n nodes, c categories.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from stajax.nets.base import AudioVisualModule
from stajax.nets.classifier import Classification
from stajax.nets.fusion import SoundMap


class Tagger(AudioVisualModule):
  """The audio backbone and a linear classifier; its `sound` is that of SA, so either can start from the other.

  Attributes:
    has_map: Whether the mean of the map that SA makes of a sound has to name the category as well. A network that
      starts from such a tagger begins with a map whose channel i says how much the sound speaks for category i.
  """

  has_map: bool = False

  @property
  def num_times(self) -> int:
    return 0

  @property
  def backbone_stages(self) -> tuple[str, ...]:
    return ()

  def setup(self) -> None:
    super().setup()
    self.classify = nn.Dense(self.num_categories, dtype=self.sizes.dtype)
    if self.has_map:
      self.sound_map = SoundMap(self.num_categories, self.sizes.dtype)

  def __call__(self, sound: jax.Array, train: bool = False) -> Classification:
    """Classifies the target's sound: (b, n, 257, s) to logits (b, c); there are no class maps."""
    audio = self.encode_sound(sound[:, 0], train)
    logits = self.classify(audio).astype(jnp.float32)
    if not self.has_map:
      return Classification(None, logits, None)
    heard = self.sound_map(audio, jnp.ones(audio.shape[:1]), None)
    return Classification(None, logits, jnp.mean(heard.astype(jnp.float32), axis=(1, 2))[:, None])
