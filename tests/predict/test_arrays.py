"""Tests of predictions of arrays, which agree with those of a file that has the same frames and sound."""

import numpy as np
import pytest

from helpers.media_files import clicks, write_video
from stajax.media.arrays import sound_blocks
from stajax.media.audio import audio_blocks
from stajax.media.video import frame_times
from stajax.predict.api import SaliencyModel
from tests.predict.test_outputs import Brightness, spot


@pytest.mark.parametrize("sampling", [{}, {"fps": 3.0}, {"every": 2}, {"every": 1, "smooth": 0.2}])
def test_arrays_give_the_maps_of_a_file(tmp_path, sampling):
  frames, wave = spot(14), clicks(1.4, [0.3, 0.9], 16000)
  sound = {"sound": wave, "sound_codec": "pcm_s16le", "sound_rate": 16000}
  path = write_video(tmp_path / "a.mkv", frames, codec="ffv1", pixels="bgr0", **sound)
  model = SaliencyModel(Brightness(), "m")
  expected, found = model.predict(path, **sampling), model.predict_arrays(frames, 10, wave.T, 16000, **sampling)
  np.testing.assert_allclose(found.times, expected.times, atol=1e-3)
  np.testing.assert_allclose(found.maps, expected.maps, atol=0.02)  # the file's picture is scaled in another format
  assert found.size == expected.size and found.has_sound and found.rate == pytest.approx(expected.rate)
  found.save_overlay(tmp_path / "o.mp4")
  np.testing.assert_allclose(list(frame_times(tmp_path / "o.mp4")), np.arange(14) / 10, atol=1e-4)
  np.testing.assert_array_equal(found.crop("1:1").windows, expected.crop("1:1").windows)


@pytest.mark.parametrize("kind", [np.float32, np.int16])
def test_sound_of_any_rate_is_heard_as_from_a_file(tmp_path, kind):
  rng = np.random.default_rng(0)
  wave = rng.uniform(-0.5, 0.5, (2, 44100)).astype(np.float32)
  path = write_video(tmp_path / "a.mkv", spot(10), sound=wave, sound_codec="pcm_s16le", sound_rate=44100)
  given = wave.T if kind is np.float32 else np.round(wave.T * 32768).astype(np.int16)
  expected, found = np.concatenate(list(audio_blocks(path))), np.concatenate(list(sound_blocks(given, 44100)))
  assert abs(len(found) - len(expected)) <= 64
  count = min(len(found), len(expected)) - 64
  np.testing.assert_allclose(found[:count], expected[:count], atol=2e-3)


FRAMES = np.zeros((2, 4, 4, 3), np.uint8)


@pytest.mark.parametrize("arguments, message", [
  ((np.zeros((2, 4, 4)), 10), r"^frames\[0\]: found float64 \(4, 4\), expected uint8 \(height, width, 3\) RGB$"),
  (([], 10), "^frames: found none"),
  ((iter([]), 10), "^frames: found list_iterator"),
  ((FRAMES, 0), "^rate 0: expected frames a second"),
  ((FRAMES, 10, np.zeros((2, 16000)), 16000), r"^sound: found the shape \(2, 16000\), expected \(samples,\)"),
  ((FRAMES, 10, np.zeros(100)), "^sound_rate None: expected samples a second"),
  ((FRAMES, 10, np.zeros(100, np.uint8), 16000), "^sound: found uint8, expected float"),
  ((FRAMES, 10, np.full(100, np.nan), 16000), "^sound: found values that are not finite"),
  (([FRAMES[0], FRAMES[0][1:]], 10), r"^frames\[1\]: found uint8 \(3, 4, 3\), expected \(4, 4, 3\)"),
])  # fmt: skip
def test_arrays_of_other_forms_are_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    SaliencyModel(Brightness()).predict_arrays(*arguments)


@pytest.mark.parametrize("sampling, message", [
  ({"every": 0}, "every 0"), ({"fps": 0.0}, "fps 0"), ({"every": 2, "fps": 2.0}, "every 2 and fps 2"),
  ({"smooth": -1.0}, "smooth -1"),
])  # fmt: skip
def test_samplings_of_other_forms_are_refused(sampling, message):
  with pytest.raises(ValueError, match=f"^{message}: expected"):
    SaliencyModel(Brightness()).predict_arrays(FRAMES, 10, **sampling)
