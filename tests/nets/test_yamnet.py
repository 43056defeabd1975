"""YAMNet's blocks against a slow transcription, and the log-mel that they take against YAMNet's own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from numpy.lib.stride_tricks import sliding_window_view

from helpers.random_variables import randomise
from helpers.tiny import quick_jit
from stajax.media import spectrogram
from stajax.nets import yamnet
from stajax.nets.base import NetworkSizes
from stajax.nets.tagger import Tagger
from stajax.nets.yamnet import YAMNet, log_mel

# Published rows: stride, output channels.
ROWS = ((1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), *[(1, 512)] * 5, (2, 1024))


def convolve(x, kernel, stride, subscripts):
  """Convolves (h, w, c) with TensorFlow's padding `same`: the odd pixel is at the end."""
  pads = []
  for size in x.shape[:2]:
    total = max((-(-size // stride) - 1) * stride + len(kernel) - size, 0)
    pads.append((total // 2, total - total // 2))
  windows = sliding_window_view(np.pad(x, (*pads, (0, 0))), kernel.shape[:2], (0, 1))[::stride, ::stride]
  return np.einsum(subscripts, windows, kernel, optimize=True)


def test_blocks_are_those_published():
  shapes: Any = jax.eval_shape(YAMNet().init, jax.random.key(0), jnp.zeros((1, 257, 10)))
  variables = randomise(shapes)
  bands = np.random.default_rng(0).normal(size=(11, 64)).astype(np.float32)
  found = quick_jit(lambda v, x: YAMNet().apply(v, x, method="encode"))(variables, jnp.asarray(bands[None]))
  params = jax.tree.map(np.asarray, variables["params"])
  x = convolve(bands[..., None], params["stem"]["kernel"], 2, "hwcij,ijco->hwo") + params["stem"]["bias"]
  x = np.clip(x, 0, 6)
  for i, (stride, features) in enumerate(ROWS):
    depthwise, pointwise = params[f"block{i}_depthwise"], params[f"block{i}_pointwise"]
    x = convolve(x, depthwise["kernel"][:, :, 0], stride, "hwcij,ijc->hwc") + depthwise["bias"]
    x = np.clip(x, 0, 6) @ pointwise["kernel"][0, 0] + pointwise["bias"]
    x = np.clip(x, 0, 6)
    assert x.shape[-1] == features
  np.testing.assert_allclose(found[0], x.mean((0, 1)), rtol=1e-3, atol=1e-4)


def test_log_mel_is_the_transcription():
  x = np.random.default_rng(0).normal(size=(2, 257, 7)).astype(np.float32)
  for sound, found in zip(x, np.asarray(log_mel(jnp.asarray(x))), strict=True):
    power = np.log(np.exp(0.78 * (sound - sound.min()).astype(np.float64)) - 1 + 0.0023)
    sharpened = scipy.ndimage.correlate(power, yamnet._SHARPEN, mode="nearest")
    magnitude = 0.268 * np.sqrt(np.exp(sharpened))
    np.testing.assert_allclose(found, np.log(yamnet.mel_matrix().T @ magnitude + 0.001).T[1:-1], rtol=1e-4, atol=1e-3)


def test_bands_are_triangles_that_are_evenly_wide_in_mel():
  weights = yamnet.mel_matrix()
  assert weights.shape == (257, 64) and not weights[0].any() and weights.max() <= 1
  hertz = np.arange(257) * 31.25
  assert not weights[(hertz < 125) | (hertz > 7500)].any()
  # Between the first and the last middle, the two triangles over a bin add to 1.
  inside = (hertz > 180) & (hertz < 7150)
  np.testing.assert_allclose(weights[inside].sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("level", [0.02, 0.2])
def test_log_mel_is_much_like_that_of_the_waveform(level):
  """Tones that glide in noise, at two levels, against the log-mel of YAMNet's own windows."""
  rng, time = np.random.default_rng(0), np.arange(16_000) / 16_000
  samples = np.sin(2 * np.pi * (400 + 600 * time) * time) + np.sin(2 * np.pi * 2500 * time) * (time % 0.25 < 0.1)
  samples = level * samples + 0.002 * rng.normal(size=len(time))
  columns = spectrogram.log_spectrogram(samples)
  found = log_mel(jnp.asarray((columns - columns.mean()) / columns.std())[None])[0]
  hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
  segments = sliding_window_view(samples, 400)[200::160][:96] * hann
  expected = np.log(np.abs(np.fft.rfft(segments, 512)) @ yamnet.mel_matrix() + 0.001)
  assert found.shape == expected.shape
  assert np.corrcoef(np.ravel(found), expected.ravel())[0, 1] > 0.75


def test_sounds_of_any_loudness_give_finite_features():
  shapes: Any = jax.eval_shape(YAMNet().init, jax.random.key(0), jnp.zeros((1, 257, 98)))
  sounds = np.zeros((3, 257, 98), np.float32)
  sounds[1, 100, 50] = 150  # a click in a clip that is silent else
  sounds[2] = np.random.default_rng(0).normal(size=(257, 98))
  apply = quick_jit(lambda v, x: YAMNet().apply(v, x))
  found = np.asarray(apply(randomise(shapes), jnp.asarray(sounds)))
  assert found.shape == (3, 1024) and np.isfinite(found).all()
  np.testing.assert_allclose(found.mean(axis=1), 0, atol=1e-4)
  gradient = jax.grad(lambda x: jnp.sum(log_mel(x) ** 2))(jnp.asarray(sounds))
  assert np.isfinite(gradient).all()


def test_networks_that_hear_take_it():
  network = Tagger(num_categories=3, sizes=NetworkSizes(audio_encoder="yamnet", audio_width=0.1, audio_norm="group"))
  variables: Any = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 1, 257, 98)))
  assert variables["params"]["classify"]["kernel"].shape == (1024, 3)
  assert sum(x.size for x in jax.tree.leaves(variables["params"]["sound"])) == 2_135_616
