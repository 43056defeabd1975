"""Sound features: the spectrogram against SciPy, streams against the whole, windows against the definition."""

import numpy as np
import pytest
import scipy.io.wavfile
import scipy.signal
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stajax.media.file import MediaError
from stajax.media.spectrogram import (
  KEPT_COLUMNS,
  SoundWindows,
  log_spectrogram,
  normalise,
  samples_from_wav,
  spectrogram_blocks,
  statistics,
  until,
  window_columns,
)


def noise(length: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).normal(0, 0.1, length).astype(np.float32)


def slow_reflect(index: int, size: int) -> int:
  while not 0 <= index < size:
    index = 0 if size == 1 else -index if index < 0 else 2 * (size - 1) - index
  return index


# Of the sound of `stored_sound`, by SciPy 1.17 in float64 as VGGSound's `preprocess_audio.py` calls it: (bin, column).
STORED = {
  (0, 0): -16.0867688, (13, 0): -11.5242348, (14, 3): -6.0704246, (15, 7): -9.1019186, (100, 5): -13.8448863,
  (128, 10): -15.8069279, (256, 12): -13.6804022, (14, 14): -7.3147078, (14, 15): -9.5011091, (40, 13): -15.1311853,
  (200, 1): -14.7482955, (1, 21): -16.1180957,
}  # fmt: skip
STORED_MEAN, STORED_DEVIATION = -15.0225498, 1.2034247


def stored_sound() -> np.ndarray:
  """A tone in noise of a generator that is written out here, then silence: (4000,) multiples of 1 / 32768."""
  state, samples = 1, np.zeros(4000, np.float32)
  for i in range(2500):
    state = state * 16807 % 2147483647
    value = 0.4 * np.sin(2 * np.pi * 440 * i / 16000) + 0.2 * (state / 2147483647 - 0.5)
    samples[i] = round(32768 * value) / 32768
  return samples


def test_spectrogram_is_vggsounds():
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


def test_sound_that_ends_early_is_followed_by_silence():
  blocks = [np.ones(16000, np.float32), np.ones(100, np.float32)]
  padded = np.concatenate(list(until(blocks, 3.5)))
  assert len(padded) == 56000 and padded[:16100].all() and not padded[16100:].any()
  for end in (None, 0.5, 1.2, 1e6):  # not known, earlier, hardly later, absurd
    assert len(np.concatenate(list(until(blocks, end)))) == 16100
  assert list(until([], 3.0)) == []


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40000), st.lists(st.integers(0, 9000), max_size=12))
def test_stream_equals_the_whole(length, sizes):
  samples = noise(length)
  blocks = np.split(samples, np.minimum(np.cumsum(sizes), length).astype(int))
  streamed = np.concatenate(list(spectrogram_blocks(blocks)), axis=1)
  np.testing.assert_array_equal(streamed, log_spectrogram(samples))
  assert streamed.shape[1] == max(1, (length - 512) // 159 + 1)


def test_no_samples_no_columns():
  assert list(spectrogram_blocks([])) == []
  assert list(spectrogram_blocks([np.zeros(0, np.float32)])) == []
  assert statistics([]) == (0.0, 0.0, 0)


def test_statistics_are_those_of_the_whole_sound():
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
  assume(np.ptp(np.sort(distances)[:2]) > 1e-9)  # two are as near
  nearest = int(np.argmin(distances)) - 200
  first = columns.tolist()
  expected = [slow_reflect(index, num_columns) for index in range(nearest - 49, nearest + 49)]
  assert first == expected


@pytest.mark.parametrize("seconds", [0.01, 0.3, 1.0, 5.0, 45.0])
def test_streamed_windows_equal_the_whole_in_bounded_memory(seconds):
  samples = noise(round(16000 * seconds), seed=3)
  columns = log_spectrogram(samples)
  mean, deviation, count = statistics([columns])
  windows = SoundWindows(lambda: spectrogram_blocks(np.array_split(samples, 40)), count, mean, deviation)
  whole = normalise(columns, mean, deviation)
  held = 0
  for time in np.arange(0, seconds + 8, 0.125):  # the picture outlasts the sound
    window = windows.window(float(time))
    np.testing.assert_array_equal(window, whole[:, window_columns(float(time), count)])
    held = max(held, len(windows._kept))
  assert window.shape == (257, 98) and window.dtype == np.float32
  assert held <= KEPT_COLUMNS + 300
  assert np.isfinite(windows.window(seconds + 1000)).all()


def test_windows_of_successive_frames_share_their_columns():
  samples = noise(16000 * 34, seed=4)
  columns = log_spectrogram(samples)
  windows = SoundWindows(lambda: spectrogram_blocks([samples]), columns.shape[1], *statistics([columns])[:2])
  kept = [windows.window(time) for time in np.arange(1, 33, 0.25)]
  strips = {id(window.base): window.base for window in kept}
  assert sum(strip.nbytes for strip in strips.values()) < 0.4 * sum(window.nbytes for window in kept)
  with pytest.raises(ValueError, match="read-only"):
    kept[0][:] = 0


def test_windows_far_apart_hold_no_more_and_can_begin_again():
  """What lies between two of them is dropped while it is read."""
  held, number = [], 300

  def blocks():
    for at in range(number):
      held.append(len(windows._kept))
      yield np.full((257, 100), at, np.float32)

  windows = SoundWindows(blocks, 100 * number, 0.0, 1.0)
  for time in (3.0, 250.0, 251.0):
    columns = window_columns(time, 100 * number)
    np.testing.assert_allclose(windows.window(time)[0], columns // 100)
  assert max(held) <= KEPT_COLUMNS + 100
  again = windows.again()
  np.testing.assert_allclose(again.window(3.0)[5], window_columns(3.0, 100 * number) // 100)
  np.testing.assert_allclose(windows.window(260.0)[5], window_columns(260.0, 100 * number) // 100)


def test_windows_cannot_go_back_or_on_without_sound():
  columns = np.arange(257 * 6000, dtype=np.float32).reshape(257, 6000)
  windows = SoundWindows(lambda: [columns], 6000, 0.0, 1.0)
  windows.window(50.0)
  with pytest.raises(ValueError, match="no longer kept"):
    windows.window(1.0)
  with pytest.raises(ValueError, match="ended after 6000"):
    SoundWindows(lambda: [columns], 7000, 0.0, 1.0).window(70.0)


@pytest.mark.parametrize(
  "kind, scale", [(np.uint8, 127), (np.int16, 32767), (np.int32, 2**31 - 1), (np.float32, 1), (np.float64, 1)]
)
@pytest.mark.parametrize("rate, channels", [(16000, 1), (8000, 2), (44100, 3)])
def test_wav_of_any_format(tmp_path, kind, scale, rate, channels):
  wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
  stored = (wave * scale + (128 if kind is np.uint8 else 0)).astype(kind)
  scipy.io.wavfile.write(tmp_path / "a.wav", rate, np.stack([stored] * channels, 1))
  samples = samples_from_wav(tmp_path / "a.wav")
  assert samples.dtype == np.float32 and abs(len(samples) - 16000) <= 2
  expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
  np.testing.assert_allclose(samples[500:15500], expected[500:15500], atol=0.02)


def test_wav_without_sound(tmp_path):
  (tmp_path / "a.wav").write_text("no sound")
  with pytest.raises(MediaError, match=r"a\.wav"):
    samples_from_wav(tmp_path / "a.wav")
  scipy.io.wavfile.write(tmp_path / "b.wav", 16000, np.zeros(0, np.int16))
  with pytest.raises(MediaError, match=r"b\.wav"):
    samples_from_wav(tmp_path / "b.wav")
