"""The spectrogram compared with SciPy, streams with the whole sound, and windows with the definition."""

import numpy as np
import pytest
import scipy.signal
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from helpers.media_files import noise
from stajax.media.spectrogram import (
  log_spectrogram,
  normalise,
  spectrogram_axes,
  spectrogram_blocks,
  statistics,
  window_columns,
)


def slow_reflect(index: int, size: int) -> int:
  while not 0 <= index < size:
    index = 0 if size == 1 else -index if index < 0 else 2 * (size - 1) - index
  return index


# Values of the spectrogram of `stored_sound` by (bin, column), made by SciPy 1.17 in float64, which was called as
# VGGSound's `preprocess_audio.py` calls it.
STORED = {
  (0, 0): -16.0867688, (13, 0): -11.5242348, (14, 3): -6.0704246, (15, 7): -9.1019186, (100, 5): -13.8448863,
  (128, 10): -15.8069279, (256, 12): -13.6804022, (14, 14): -7.3147078, (14, 15): -9.5011091, (40, 13): -15.1311853,
  (200, 1): -14.7482955, (1, 21): -16.1180957,
}  # fmt: skip
STORED_MEAN, STORED_DEVIATION = -15.0225498, 1.2034247


def stored_sound() -> np.ndarray:
  """Returns a tone in noise, whose generator is written out here, and then silence: (4000,) multiples of 1 / 32768."""
  state, samples = 1, np.zeros(4000, np.float32)
  for i in range(2500):
    state = state * 16807 % 2147483647
    value = 0.4 * np.sin(2 * np.pi * 440 * i / 16000) + 0.2 * (state / 2147483647 - 0.5)
    samples[i] = round(32768 * value) / 32768
  return samples


def test_spectrogram_equals_vggsounds():
  samples = stored_sound()
  spectrogram = log_spectrogram(samples)
  assert spectrogram.shape == (257, 22) and spectrogram.dtype == np.float32
  for at, value in STORED.items():
    assert spectrogram[at] == pytest.approx(value, abs=1e-5)
  mean, deviation, _ = statistics([spectrogram])
  assert (mean, deviation) == pytest.approx((STORED_MEAN, STORED_DEVIATION), abs=1e-5)
  _, _, power = scipy.signal.spectrogram(samples.astype(np.float64), 16000, nperseg=512, noverlap=353)
  np.testing.assert_allclose(spectrogram, np.log(power + 1e-7), atol=1e-5)
  assert log_spectrogram(noise(160000)).shape == (257, 1004)
  assert log_spectrogram(noise(16000)).shape == (257, 98)
  # Transcribed: detrended, Tukey-windowed segment, one-sided density.
  window = scipy.signal.windows.tukey(512, 0.25, sym=False)
  segment = samples[159 * 7 :][:512].astype(np.float64)
  density = np.abs(np.fft.rfft((segment - segment.mean()) * window)) ** 2 / (16000 * (window**2).sum())
  density[1:-1] *= 2
  np.testing.assert_allclose(spectrogram[:, 7], np.log(density + 1e-7), atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40000), st.lists(st.integers(0, 9000), max_size=12))
def test_stream_equals_the_whole(length, sizes):
  samples = noise(length)
  blocks = np.split(samples, np.minimum(np.cumsum(sizes), length).astype(int))
  streamed = np.concatenate(list(spectrogram_blocks(blocks)), axis=1)
  np.testing.assert_array_equal(streamed, log_spectrogram(samples))
  assert streamed.shape[1] == max(1, (length - 512) // 159 + 1)


@pytest.mark.parametrize("length", [1, 511, 512, 671, 16384, 50000])
@pytest.mark.parametrize("kind", ["noise", "16 bits", "faint", "silent", "loud"])
def test_every_bit_equals_scipys(length, kind):
  samples = noise(length, seed=length).astype(np.float64)
  samples = {
    "noise": samples, "16 bits": np.round(samples * 32768) / 32768, "faint": 1e-4 * samples, "silent": 0 * samples,
    "loud": np.sign(samples),
  }[kind]  # fmt: skip
  padded = np.pad(samples, (0, max(0, 512 - length)))
  _, _, power = scipy.signal.spectrogram(padded, 16000, nperseg=512, noverlap=353)
  expected = np.log(power + 1e-7).astype(np.float32)
  found = log_spectrogram(samples)
  np.testing.assert_array_equal(found, expected)
  assert found.dtype == expected.dtype == np.float32 and found.strides == expected.strides
  assert statistics([found]) == statistics([expected])


def test_axes_equal_those_of_scipy_and_librosa():
  frequencies, times = spectrogram_axes(98)
  expected = scipy.signal.spectrogram(np.zeros(16000), 16000, nperseg=512, noverlap=353)[:2]
  np.testing.assert_allclose(frequencies, expected[0])
  np.testing.assert_allclose(times, expected[1])
  librosa = pytest.importorskip("librosa")
  np.testing.assert_allclose(frequencies, librosa.fft_frequencies(sr=16000, n_fft=512))
  np.testing.assert_allclose(times, librosa.frames_to_time(np.arange(98), sr=16000, hop_length=159, n_fft=512))


def test_no_samples_give_no_columns():
  assert list(spectrogram_blocks([])) == []
  assert list(spectrogram_blocks([np.zeros(0, np.float32)])) == []
  assert statistics([]) == (0.0, 0.0, 0)


def test_statistics_of_blocks_equal_those_of_the_whole_sound():
  columns = (noise(257 * 700).reshape(257, 700) * 0.01 + 1000).astype(np.float32)
  mean, deviation, count = statistics(np.split(columns, [1, 5, 5, 300], axis=1))
  assert count == 700
  assert mean == pytest.approx(columns.mean(dtype=np.float64), rel=1e-12)
  assert deviation == pytest.approx(columns.std(dtype=np.float64), rel=1e-9)
  normalised = normalise(log_spectrogram(noise(32000)), *statistics([log_spectrogram(noise(32000))])[:2])
  assert abs(normalised.mean()) < 1e-3 and normalised.std() == pytest.approx(1, abs=1e-3)


def test_silence_normalises_to_zero():
  columns = log_spectrogram(np.zeros(16000))
  mean, deviation, _ = statistics([columns[:, :30], columns[:, 30:]])
  assert deviation < 1e-6
  np.testing.assert_array_equal(normalise(columns, mean, deviation), 0)


@settings(deadline=None)
@given(st.floats(0, 30), st.integers(1, 3000))
def test_window_is_the_second_around_its_time(time, num_columns):
  columns = window_columns(time, num_columns)
  centres = (np.arange(-200, 10000) * 159 + 256) / 16000
  distances = np.abs(centres - time)
  assume(np.ptp(np.sort(distances)[:2]) > 1e-9)  # two columns are equally near
  nearest = int(np.argmin(distances)) - 200
  expected = [slow_reflect(index, num_columns) for index in range(nearest - 49, nearest + 49)]
  assert columns.tolist() == expected
  many = window_columns(np.array([[0.0, time]]), np.array([[1, num_columns]]))
  assert many.shape == (1, 2, 98) and not many[0, 0].any() and many[0, 1].tolist() == expected
