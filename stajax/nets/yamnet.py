"""YAMNet without its last layers: an audio backbone that was trained on AudioSet (Plakal and Ellis, 2019).

Its body is MobileNet's (Howard et al., 2017). Batch normalisation is part of the convolutions, as in the TFLite file
that `stajax.weights.yamnet` reads. The body takes the log-mel of Hann windows of 25 ms. Sounds come here as VGGSound's
log-spectrogram of Tukey windows of 32 ms, normalised over the clip; `log_mel` makes one of the other.

Axes: m merged batch, f frequency bins, s spectrogram columns, k mel bands, c channels.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stajax.nets.layers import DepthwiseConv

STEM = 32
"""The channels of the first convolution."""
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2))
"""The channels and the stride of each block: a depthwise convolution and a 1×1 convolution.

YAMNet has one more, of 1024 channels. It is a third of all parameters, and tags are told apart better without it.
"""

_NUM_BANDS = 64
_LOWEST, _HIGHEST = 125.0, 7500.0  # Hz, the ends of the mel bands
_FLOOR = 0.001  # what YAMNet adds to a magnitude before its logarithm

# These were fitted on clips: the whole YAMNet was to hear through them what it hears in the waveform. The clip's mean
# and deviation are not known here, but the faintest bin of a second is at the floor of the spectrogram.
_DEVIATION = 0.78  # what the logarithm of power is multiplied by, as the clip's deviation would
_FAINTEST = 0.0023  # the least power above that floor, as a part of it
_GAIN = 0.268  # what magnitudes are multiplied by, so that their level is that in YAMNet's own windows
_LOUDEST = 20.0  # the logarithm of power over the floor never gets that far; exp stays finite
# A Tukey window is nearly a box, whose spectrum changes less from column to column and leaks more than that of a Hann
# window. YAMNet takes that for another sound. This sharpens the logarithm of power in time (columns, rightwards), and
# blurs it in frequency (bins, downwards).
_SHARPEN = np.array(
  [
    [-0.051, -0.052, 0.271, 0.023, -0.091],
    [0.203, -0.518, 1.521, -0.274, 0.254],
    [-0.122, -0.076, 0.398, 0.055, -0.121],
  ],
  np.float32,
)


class YAMNet(nn.Module):
  """All blocks of YAMNet but the last on a 257-bin log-spectrogram, averaged over time and frequency.

  Attributes:
    dtype: The type that convolutions compute in.
  """

  dtype: Any = jnp.float32

  def __call__(self, spectrogram: jax.Array, train: bool = False) -> jax.Array:
    """Encodes sounds.

    Args:
      spectrogram: (m, 257, s) normalised log-spectrograms, s at least 3.
      train: Not used: there are no batch statistics.

    Returns:
      (m, 1024) float32, each of mean 0 and variance 1, since new layers expect such numbers.
    """
    x = self.encode(log_mel(spectrogram))
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + 1e-6)

  @nn.compact
  def encode(self, bands: jax.Array) -> jax.Array:
    """Averages what the last block gives for YAMNet's own log-mel (m, s, 64) to (m, 1024) float32."""
    x = bands[..., None].astype(self.dtype)
    x = nn.relu6(nn.Conv(STEM, (3, 3), 2, dtype=self.dtype, name="stem")(x))
    for index, (features, strides) in enumerate(BLOCKS):
      x = nn.relu6(DepthwiseConv(3, strides, self.dtype, name=f"block{index}_depthwise")(x))
      x = nn.relu6(nn.Conv(features, (1, 1), dtype=self.dtype, name=f"block{index}_pointwise")(x))
    return jnp.mean(x.astype(jnp.float32), axis=(1, 2))


def log_mel(spectrogram: jax.Array) -> jax.Array:
  """Turns normalised log-spectrograms (m, 257, s) into log-mels (m, s - 2, 64) float32, much like YAMNet's own.

  The first and the last column are left out: a second has 98 columns here and 96 there.
  """
  x = spectrogram.astype(jnp.float32)
  level = _DEVIATION * (x - jnp.min(x, axis=(1, 2), keepdims=True))
  power = jnp.log(jnp.expm1(jnp.minimum(level, _LOUDEST)) + _FAINTEST)
  padded = jnp.pad(power, ((0, 0), (1, 1), (2, 2)), mode="edge")
  sharpened: Any = 0
  for (row, column), weight in np.ndenumerate(_SHARPEN):
    ends = (row + power.shape[1], column + power.shape[2])
    sharpened = sharpened + weight * jax.lax.slice(padded, (0, row, column), (x.shape[0], *ends))
  magnitude = _GAIN * jnp.exp(sharpened[:, :, 1:-1] / 2)
  return jnp.log(jnp.einsum("mfs,fk->msk", magnitude, mel_matrix()) + _FLOOR)


def mel_matrix(num_bins: int = 257, sample_rate: float = 16000) -> np.ndarray:
  """Returns the weights (f, k) float32 of bins in triangular bands that are evenly wide in mel, as HTK defines it."""

  def mel(hertz: float | np.ndarray) -> np.ndarray:
    return 1127 * np.log1p(np.asarray(hertz) / 700)

  edges = np.linspace(mel(_LOWEST), mel(_HIGHEST), _NUM_BANDS + 2)
  bins = mel(np.linspace(0, sample_rate / 2, num_bins))[:, None]
  rises = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
  falls = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
  weights = np.maximum(0, np.minimum(rises, falls))
  weights[0] = 0  # the mean of a segment is no sound
  return weights.astype(np.float32)
