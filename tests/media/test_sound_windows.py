"""One-second windows of streams, compared with those of the whole sound."""

import numpy as np
import pytest

from helpers.media_files import noise
from stajax.media.sound_windows import KEPT_COLUMNS, SoundWindows, pad_with_silence
from stajax.media.spectrogram import (
  Statistics,
  log_spectrogram,
  normalise,
  spectrogram_blocks,
  statistics,
  window_columns,
)


def test_sound_that_ends_early_is_followed_by_silence():
  blocks = [np.ones(16000, np.float32), np.ones(100, np.float32)]
  padded = np.concatenate(list(pad_with_silence(blocks, 3.5)))
  assert len(padded) == 56000 and padded[:16100].all() and not padded[16100:].any()
  for end in (None, 0.5, 1.2, 1e6):  # unknown, earlier, slightly later, absurd
    assert len(np.concatenate(list(pad_with_silence(blocks, end)))) == 16100
  assert list(pad_with_silence([], 3.0)) == []


@pytest.mark.parametrize("seconds", [0.01, 0.3, 1.0, 5.0, 45.0])
def test_streamed_windows_equal_the_whole_in_bounded_memory(seconds):
  samples = noise(round(16000 * seconds), seed=3)
  columns = log_spectrogram(samples)
  found = statistics([columns])
  windows = SoundWindows(lambda: spectrogram_blocks(np.array_split(samples, 40)), found)
  whole = normalise(columns, found.mean, found.deviation)
  held = 0
  for time in np.arange(0, seconds + 8, 0.125):  # the picture outlasts the sound
    window = windows.window(float(time))
    np.testing.assert_array_equal(window, whole[:, window_columns(float(time), found.num_columns)])
    held = max(held, len(windows._kept))
  assert window.shape == (257, 98) and window.dtype == np.float32
  assert held <= KEPT_COLUMNS + 300
  assert np.isfinite(windows.window(seconds + 1000)).all()


def test_windows_of_successive_frames_share_their_columns():
  samples = noise(16000 * 34, seed=4)
  columns = log_spectrogram(samples)
  windows = SoundWindows(lambda: spectrogram_blocks([samples]), statistics([columns]))
  kept = [windows.window(time) for time in np.arange(1, 33, 0.25)]
  strips = {id(window.base): window.base for window in kept}
  assert sum(strip.nbytes for strip in strips.values()) < 0.4 * sum(window.nbytes for window in kept)
  with pytest.raises(ValueError, match="read-only"):
    kept[0][:] = 0


def test_windows_far_apart_hold_no_more_and_can_begin_again():
  """The columns between two windows are dropped while they are read."""
  held, number = [], 300

  def blocks():
    for at in range(number):
      held.append(len(windows._kept))
      yield np.full((257, 100), at, np.float32)

  windows = SoundWindows(blocks, Statistics(0.0, 1.0, 100 * number))
  for time in (3.0, 250.0, 251.0):
    columns = window_columns(time, 100 * number)
    np.testing.assert_allclose(windows.window(time)[0], columns // 100)
  assert max(held) <= KEPT_COLUMNS + 100
  again = windows.again()
  np.testing.assert_allclose(again.window(3.0)[5], window_columns(3.0, 100 * number) // 100)
  np.testing.assert_allclose(windows.window(260.0)[5], window_columns(260.0, 100 * number) // 100)


def test_windows_cannot_go_back_or_on_without_sound():
  columns = np.arange(257 * 6000, dtype=np.float32).reshape(257, 6000)
  windows = SoundWindows(lambda: [columns], Statistics(0.0, 1.0, 6000))
  windows.window(50.0)
  with pytest.raises(ValueError, match="no longer kept"):
    windows.window(1.0)
  with pytest.raises(ValueError, match="ended after 6000"):
    SoundWindows(lambda: [columns], Statistics(0.0, 1.0, 7000)).window(70.0)
