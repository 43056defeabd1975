"""Tests of maps in npz files and videos: which frame each map belongs to, and what is refused."""

import dataclasses
import tracemalloc
from unicodedata import normalize

import numpy as np
import pytest

from helpers.media_files import write_video
from stajax.evaluate.map_sources import find_source
from stajax.evaluate.methods import file_methods
from stajax.eyetracking import StavisError, StavisVideo

VIDEO = StavisVideo("Coutrot_db1", "v", 5.0, 4, (1,), (), {}, {})
MAPS = np.random.default_rng(0).integers(0, 256, (6, 16, 32), dtype=np.uint8)


def read(folder, frames=range(4), video=VIDEO):
  notes = []
  found = list(find_source(folder, video, notes).read(list(frames)))
  return [i for i, _, _ in found], [values for _, values, _ in found], notes


def test_arrays_with_and_without_times(tmp_path):
  (tmp_path / "coutrot1").mkdir()
  np.savez(tmp_path / "coutrot1" / "v.npz", maps=MAPS)
  frames, values, notes = read(tmp_path, [1, 3])
  assert frames == [1, 3] and "2 maps past frame 4 ignored" in notes[0]
  np.testing.assert_array_equal(values, MAPS[[1, 3]])


def test_of_several_files_one_is_read_and_said(tmp_path):
  np.savez(tmp_path / "v.npz", maps=MAPS[:4])
  np.savez(tmp_path / "v.maps-000.npz", maps=MAPS[2:])
  (tmp_path / "v.mp4").touch()
  _, values, notes = read(tmp_path, [0])
  assert notes == [f"{tmp_path}/v.npz is read; {tmp_path}/v.maps-000.npz, {tmp_path}/v.mp4 of the same video is not"]
  np.testing.assert_array_equal(values, MAPS[:1])
  twice = [dataclasses.replace(VIDEO, database=name) for name in ("A", "B")]
  with pytest.raises(StavisError, match=r"two databases have this video, expected .*/<database>/v"):
    file_methods(tmp_path, twice)


@pytest.mark.parametrize("form", ["folder", "npz", "parts"])
def test_names_may_be_spelled_with_accents_of_their_own(tmp_path, form):
  name = "d\N{LATIN SMALL LETTER E WITH ACUTE}j\N{LATIN SMALL LETTER A WITH GRAVE} (1)"
  on_disk = normalize("NFD", name)
  if form == "folder":
    (tmp_path / on_disk).mkdir()
    np.save(tmp_path / on_disk / "1.npy", MAPS[0])
  else:
    np.savez(tmp_path / (on_disk + (".npz" if form == "npz" else ".maps-000.npz")), maps=MAPS[:1])
  _, values, _ = read(tmp_path, video=dataclasses.replace(VIDEO, name=name))
  np.testing.assert_array_equal(values, MAPS[:1])


def test_parts_of_a_prediction_belong_to_the_frames_of_their_times(tmp_path):
  # Five frames a second, maps at 2.5 a second: every other frame has one; 0.21 s shows frame 1.
  np.savez(tmp_path / "v.maps-000.npz", maps=MAPS[:2], times=np.array([0.0, 0.4]))
  np.savez(tmp_path / "v.maps-001.npz", maps=MAPS[2:5], times=np.array([0.21, 0.42, 1.2]))
  frames, values, notes = read(tmp_path)
  assert frames == [0, 1, 2]
  np.testing.assert_array_equal(values, MAPS[[0, 2, 1]])
  assert "1 map past frame 4 ignored" in notes[0] and "1 map ignored, of frames that have one" in notes[1]


def test_one_map_at_a_time_is_in_memory(tmp_path):
  maps = np.arange(400.0)[:, None, None] + np.zeros((1, 100, 100))
  np.savez_compressed(tmp_path / "v.npz", maps=maps)
  long = dataclasses.replace(VIDEO, num_frames=400)
  source = find_source(tmp_path, long, [])
  tracemalloc.start()
  assert [values[3, 4] for _, values, _ in source.read(range(400))] == list(range(400))
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < maps.nbytes / 20


@pytest.mark.parametrize(
  "arrays, expected",
  [
    ({"x": MAPS}, "cannot be read as maps"),
    ({"maps": MAPS[0]}, r"found maps \(16, 32\)"),
    ({"maps": np.asfortranarray(MAPS)}, "the order of Fortran, expected numpy.ascontiguousarray"),
    ({"maps": MAPS, "times": np.zeros(3)}, "found times float64"),
  ],
)
def test_bad_arrays_are_named(tmp_path, arrays, expected):
  np.savez(tmp_path / "v.npz", **arrays)
  with pytest.raises(StavisError, match=expected) as error:
    read(tmp_path)
  assert "v.npz" in str(error.value)


def test_grey_videos_and_overlays(tmp_path):
  ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (3, 48, 1))
  write_video(tmp_path / "v.mp4", np.repeat(ramp[..., None], 3, -1))
  frames, values, notes = read(tmp_path, [0, 2, 3])
  assert frames == [0, 2] and "3 frames, but the video has 4" in notes[0]
  np.testing.assert_allclose(values[1].astype(float), ramp[0], atol=6)
  colour = np.stack([ramp, 0 * ramp, 255 - ramp], -1)
  write_video(tmp_path / "v.mp4", colour)
  with pytest.raises(StavisError, match=r"v\.mp4: frame 1 is in colour"):
    read(tmp_path)
