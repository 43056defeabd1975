"""Sound files of any kind and rate that lie beside frames: they are read as they were written, in time."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.io.wavfile

from helpers.media_files import clicks, noise, onsets, read_sound
from stajax.media.file import MediaError
from stajax.media.sound_files import LibraryMissing, sound_file_blocks

librosa, soundfile = pytest.importorskip("librosa"), pytest.importorskip("soundfile")

KINDS = ["wav", "flac", "ogg", "mp3"]


def heard(path, notes=None):
  return np.concatenate([np.zeros(0, np.float32), *sound_file_blocks(path, notes)])


@pytest.mark.parametrize(
  "kind, scale", [(np.uint8, 127), (np.int16, 32767), (np.int32, 2**31 - 1), (np.float32, 1), (np.float64, 1)]
)
@pytest.mark.parametrize("rate, channels", [(16000, 1), (8000, 2), (44100, 3)])
def test_wav_files_of_any_format_are_read(tmp_path, kind, scale, rate, channels):
  wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
  stored = (wave * scale + (128 if kind is np.uint8 else 0)).astype(kind)
  scipy.io.wavfile.write(tmp_path / "a.wav", rate, np.stack([stored] * channels, 1))
  samples = heard(tmp_path / "a.wav")
  assert samples.dtype == np.float32 and abs(len(samples) - 16000) <= 2
  expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
  np.testing.assert_allclose(samples[500:15500], expected[500:15500], atol=0.02)


def test_wav_files_without_sound_are_refused_or_empty(tmp_path):
  (tmp_path / "a.wav").write_text("no sound")
  with pytest.raises(MediaError, match=r"a\.wav"):
    heard(tmp_path / "a.wav")
  scipy.io.wavfile.write(tmp_path / "b.wav", 16000, np.zeros(0, np.int16))
  assert heard(tmp_path / "b.wav").size == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate, channels", [(16000, 1), (8000, 2), (44100, 2), (48000, 1)])
def test_clicks_are_at_their_times_in_every_kind_and_rate(tmp_path, kind, rate, channels):
  path = tmp_path / f"a.{kind}"
  soundfile.write(path, clicks(3, [0.5, 1.25, 2.75], rate, channels).T, rate)
  samples = heard(path)
  assert onsets(samples) == pytest.approx([0.5, 1.25, 2.75], abs=2e-3)
  assert abs(len(samples) - 48000) <= 2 and samples.dtype == np.float32 and np.abs(samples).max() < 1
  assert np.abs(samples).max() == pytest.approx(0.8, abs=0.1)  # the channels' mean, not their sum


@pytest.mark.parametrize("kind", ["flac", "ogg", "mp3"])
def test_blocks_of_a_long_sound_join_to_librosas_whole(tmp_path, kind):
  path = tmp_path / f"a.{kind}"
  soundfile.write(path, np.stack([noise(300_000), noise(300_000, 1)], axis=1), 44100)
  whole, _ = librosa.load(path, sr=16000, res_type="soxr_hq")
  samples = heard(path)
  assert len(samples) == len(whole)
  np.testing.assert_allclose(samples, whole, atol=1 / 32768)


def test_an_mp3_file_that_is_too_long_is_refused(tmp_path, monkeypatch):
  soundfile.write(tmp_path / "a.mp3", noise(30_000), 44100)
  monkeypatch.setattr("stajax.media.sound_files._MAX_SAMPLES", 29_999)
  with pytest.raises(MediaError, match=r"a\.mp3: has 30000 samples in 1 channels, at most 29999 are read"):
    heard(tmp_path / "a.mp3")


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 96000])
@pytest.mark.parametrize("frequency", [100, 1000, 3300])
def test_resampling_keeps_a_sine_and_equals_librosas(tmp_path, rate, frequency):
  path = tmp_path / "a.flac"
  soundfile.write(path, 0.5 * np.sin(2 * np.pi * frequency * np.arange(4 * rate) / rate), rate, "PCM_24")
  samples = heard(path)
  expected = 0.5 * np.sin(2 * np.pi * frequency * np.arange(64000) / 16000)
  np.testing.assert_allclose(samples[1000:63000], expected[1000:63000], atol=1e-3)
  whole, _ = librosa.load(path, sr=16000, res_type="soxr_hq")  # all at once, where we read blocks
  assert len(samples) == len(whole)
  np.testing.assert_allclose(samples, whole, atol=1 / 32768)


def test_resampling_suppresses_what_16_khz_cannot_hold(tmp_path):
  path = tmp_path / "a.flac"
  soundfile.write(path, 0.5 * np.sin(2 * np.pi * 11000 * np.arange(3 * 44100) / 44100), 44100)
  assert np.abs(heard(path)[1000:-1000]).max() <= 2 / 32768


@pytest.mark.parametrize("length", [1, 700, 200_001])
def test_flac_is_read_as_wav_is(tmp_path, length):
  """Both give the samples that were written, as nothing is resampled."""
  stored = np.round(noise(length) * 32768).astype(np.int16)
  for kind in ("wav", "flac"):
    soundfile.write(tmp_path / f"a.{kind}", stored, 16000)
  np.testing.assert_array_equal(heard(tmp_path / "a.wav"), stored / np.float32(32768))
  np.testing.assert_array_equal(heard(tmp_path / "a.flac"), stored / np.float32(32768))


def test_wav_is_read_as_the_sound_of_videos_is(tmp_path):
  soundfile.write(tmp_path / "a.wav", np.stack([noise(44100), noise(44100, 1)], axis=1), 44100)
  np.testing.assert_array_equal(heard(tmp_path / "a.wav"), read_sound(tmp_path / "a.wav"))


def test_too_loud_samples_are_cut(tmp_path):
  soundfile.write(tmp_path / "a.ogg", np.sign(np.sin(np.arange(44100) / 50)), 44100)
  samples = heard(tmp_path / "a.ogg")
  assert samples.max() == 32767 / 32768 and samples.min() == -1


@pytest.mark.parametrize("kind", KINDS)
def test_bad_files_are_refused_in_one_line_that_names_them(tmp_path, kind):
  path = tmp_path / f"a.{kind}"
  for prepare, message in (
    (lambda: None, "no such file"), (path.touch, "is empty"), (lambda: path.write_text("no sound" * 99), ""),
    (lambda: (path.unlink(), path.mkdir()), "is a folder"),
  ):  # fmt: skip
    prepare()
    with pytest.raises(MediaError) as error:
      heard(path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_files_give_what_can_be_read_or_an_error(tmp_path, kind):
  path = tmp_path / f"a.{kind}"
  soundfile.write(path, clicks(3, [0.5], 44100).T, 44100)
  content = path.read_bytes()
  path.write_bytes(content[: len(content) // 2])
  try:
    assert onsets(heard(path)) == pytest.approx([0.5], abs=2e-3)
  except MediaError as error:
    assert str(path) in str(error)


def test_without_librosa_wav_is_read_and_the_others_say_what_to_install(tmp_path, monkeypatch):
  for kind in ("wav", "flac"):
    soundfile.write(tmp_path / f"a.{kind}", noise(1000), 16000)
  monkeypatch.setitem(sys.modules, "librosa", None)
  assert heard(tmp_path / "a.wav").size == 1000
  with pytest.raises(LibraryMissing) as error:
    heard(tmp_path / "a.flac")
  assert str(error.value).startswith(f"{tmp_path / 'a.flac'}: ") and "pip install 'stajax[train]'" in str(error.value)


def test_wav_files_and_videos_are_read_without_loading_librosa(tmp_path):
  soundfile.write(tmp_path / "a.wav", noise(20000), 44100)
  code = f"""
import sys
from stajax.media.audio import audio_blocks
from stajax.media.sound_files import sound_file_blocks
for read in (sound_file_blocks, audio_blocks):
  print(sum(map(len, read({str(tmp_path / "a.wav")!r}))))
print([name for name in ("librosa", "numba", "sklearn", "soundfile", "soxr", "scipy.signal") if name in sys.modules])
"""
  child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  first, second, loaded = child.stdout.splitlines()
  assert first == second and loaded == "[]"
