"""Trees in the STAViS layout: how they are read, and messages about errors in them."""

import io
import shutil
import struct
import zlib
from unicodedata import normalize

import numpy as np
import pytest
import scipy.io
import scipy.io.wavfile
import scipy.sparse
from PIL import Image

from helpers.paths import SHARED
from stajax import eyetracking
from stajax.eyetracking import StavisError, read_groups, read_tree
from stajax.prepare.tree_files import write_fold_lists, write_groups, write_video

SIZE = (24, 32)


def make_video(root, database="Tiny", video="one", n=4, sound=True, seed=0):
  rng = np.random.default_rng(seed)
  frames = [np.full((*SIZE, 3), 20 * i, np.uint8) for i in range(n)]
  fixations = [rng.random(SIZE) < 0.02 for _ in range(n)]
  densities = [np.full(SIZE, 10 * (i + 1), np.uint8) for i in range(n)]
  samples = np.sin(np.arange(8000) / 10) if sound else None
  assert write_video(root, database, video, frames, samples, zip(fixations, densities)) == (n, n)
  return frames, fixations, densities


@pytest.fixture
def tree(tmp_path):
  make_video(tmp_path, video="one", seed=1)
  make_video(tmp_path, video="two words", sound=False, seed=2)
  rows = [[("one", 4, 8.0)], [("two words", 4, 29.97), ("one", 4, 8.0), ("one", 4, 8.0)]]
  write_fold_lists(tmp_path, "Tiny", *rows)
  return tmp_path


def annotation(tree, name="fixMap_00001.mat", video="one"):
  return tree / "annotations" / "Tiny" / video / name


def test_trees_are_read_as_they_were_written(tmp_path):
  frames, fixations, densities = make_video(tmp_path)
  write_fold_lists(tmp_path, "Tiny", [("one", 4, 8.0)])
  (video,) = read_tree(tmp_path).videos
  assert (video.database, video.name, video.fps, video.num_frames, video.entries) == ("Tiny", "one", 8.0, 4, (0,))
  assert video.annotated == [0, 1, 2, 3] and video.sound is not None
  for i in range(4):
    np.testing.assert_array_equal(video.fixations(i), fixations[i])
    assert np.abs(video.density(i).astype(int) - densities[i]).max() <= 1
    assert np.abs(np.asarray(Image.open(video.frame_paths[i])).astype(int) - frames[i]).max() <= 2
  rate, samples = scipy.io.wavfile.read(video.sound)
  assert rate == 16000 and samples.dtype == np.int16 and samples.shape == (8000,)
  assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_lists_may_spell_accents_as_characters_and_folders_as_their_own(tmp_path):
  listed = "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
  make_video(tmp_path, video=normalize("NFD", listed))
  write_fold_lists(tmp_path, "Tiny", [(listed, 4, 8.0)])
  tree = read_tree(tmp_path)
  (video,) = tree.videos
  assert not tree.skipped and video.name == listed and len(video.annotated) == 4 and video.sound is not None


def test_every_list_row_counts(tree):
  found = read_tree(tree)
  assert {video.name: video.entries for video in found.videos} == {"one": (1, 2, 2), "two words": (2,)}
  silent = next(video for video in found.videos if video.name == "two words")
  assert silent.fps == 29.97 and silent.sound is None
  assert [path.name for path in found.fold_lists] == ["Tiny_list_test_1_fps.txt", "Tiny_list_test_2_fps.txt"]
  assert not found.skipped and not found.notes


def test_sound_may_be_of_any_kind(tree):
  folder = tree / "video_audio" / "Tiny" / "one"
  for kind in ("mp3", "ogg", "flac"):  # of several kinds the first in the list is used, which begins with WAV
    (folder / f"one.{kind}").touch()
    assert read_tree(tree).videos[0].sound == folder / "one.wav"
  (folder / "one.wav").unlink()
  assert read_tree(tree).videos[0].sound == folder / "one.flac"


def test_frames_are_sorted_by_number(tmp_path):
  make_video(tmp_path, n=12)
  folder = tmp_path / "video_frames" / "Tiny" / "one"
  for path in list(folder.iterdir()):
    path.rename(folder / f"img_{int(path.stem[4:])}.jpg")  # img_10 sorts before img_2
  write_fold_lists(tmp_path, "Tiny", [("one", 12, 8.0)])
  (video,) = read_tree(tmp_path).videos
  assert [path.stem for path in video.frame_paths] == [f"img_{i}" for i in range(1, 13)]


def test_without_fold_list_all_videos_are_used_once(tree):
  shutil.rmtree(tree / "fold_lists")
  found = read_tree(tree)
  assert [video.name for video in found.videos] == ["one", "two words"]
  assert [video.num_frames for video in found.videos] == [4, 4]
  assert "no fold list" in found.notes[0] and "Tiny_list_test_1_fps.txt" in found.notes[0]
  with pytest.raises(StavisError, match=r"Tiny/one: .*expected .*Tiny_list_test_1_fps\.txt"):
    found.videos[0].rate()


def test_missing_videos_and_frames_are_named(tree):
  shutil.rmtree(tree / "annotations" / "Tiny" / "two words")
  (tree / "video_frames" / "Tiny" / "one" / "img_00003.jpg").unlink()
  annotation(tree, "fixMap_00002.mat").unlink()
  found = read_tree(tree)
  ((database, name, reason),) = found.skipped
  assert (database, name) == ("Tiny", "two words") and "no such folder" in reason
  (video,) = found.videos
  assert video.num_frames == 2 and video.annotated == [0, 2, 3]
  assert "img_00003.jpg is missing" in found.notes[0] and "1 of 2 frames have no fixations" in found.notes[1]
  assert read_tree(tree, need_frames=False).videos[0].num_frames == 4


@pytest.mark.parametrize("text", ["one 4", "one four 25", "one 4 0", "one 4 nan", "one 0 25", "../one 4 25", "4 25"])
def test_bad_fold_lists_are_named(tree, text):
  path = tree / "fold_lists" / "Tiny_list_test_1_fps.txt"
  path.write_text(f"\none 4 25\r\n{text}\n")
  with pytest.raises(StavisError, match=r"Tiny_list_test_1_fps\.txt: line 3: ") as error:
    read_tree(tree)
  assert "\n" not in str(error.value)


def test_wrong_roots_and_databases_are_refused(tree):
  with pytest.raises(StavisError, match="no folder 'annotations'"):
    read_tree(tree / "fold_lists")
  with pytest.raises(StavisError, match="no database DIEM; found Tiny"):
    read_tree(tree, ["DIEM"])


def test_bad_fixation_files_are_named(tree):
  path = annotation(tree)
  contents = {
    "expected a variable 'eyeMap'": lambda: scipy.io.savemat(path, {"other": np.ones((3, 3))}),
    "expected numbers": lambda: scipy.io.savemat(path, {"eyeMap": np.ones((3, 3, 2))}),
    "eyeMap is char": lambda: scipy.io.savemat(path, {"eyeMap": "text"}),
    "at most": lambda: scipy.io.savemat(path, {"eyeMap": scipy.sparse.csc_matrix((60_000, 60_000))}),
    "cannot be read": lambda: path.write_bytes(b"not a mat file" * 20),
    "cannot be read as": lambda: path.write_bytes(annotation(tree, "fixMap_00002.mat").read_bytes()[:150]),
    "MATLAB 7.3": lambda: path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124, b" ") + b"\x00\x02IM" + bytes(400)),
  }
  for expected, write in contents.items():
    write()
    with pytest.raises(StavisError, match=expected) as error:
      eyetracking.read_fixations(path)
    assert "fixMap_00001.mat" in str(error.value) and "\n" not in str(error.value)


def test_fixations_of_any_numeric_kind(tree):
  path = annotation(tree)
  fixations = np.random.default_rng(0).random(SIZE) < 0.1
  for kind in (np.float64, np.uint8, np.bool_, scipy.sparse.csc_matrix):
    scipy.io.savemat(path, {"eyeMap": kind(fixations), "more": "text"})
    np.testing.assert_array_equal(eyetracking.read_fixations(path), fixations)


def test_bad_density_is_named(tree):
  path = annotation(tree, "maps/eyeMap_00001.jpg")
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(StavisError, match=r"eyeMap_00001\.jpg: cannot be read as an image"):
    eyetracking.read_density(path)


def test_writer_refuses_other_folders_and_replaces_videos(tmp_path):
  with pytest.raises(ValueError, match="not the name of a folder"):
    write_video(tmp_path, "Tiny", "../one", [], None, [])
  make_video(tmp_path, n=4)
  make_video(tmp_path, n=2, sound=False)
  assert len(list((tmp_path / "video_frames" / "Tiny" / "one").iterdir())) == 2
  assert not (tmp_path / "video_audio" / "Tiny" / "one").exists()
  with pytest.raises(ValueError, match="fps is 0, expected more than 0"):
    write_fold_lists(tmp_path, "Tiny", [("one", 4, 0)])
  with pytest.raises(ValueError):  # fewer annotations than frames: nothing of it appears, the old video stays
    write_video(tmp_path, "Tiny", "one", [np.zeros((*SIZE, 3), np.uint8)] * 3, None, [])
  assert len(list((tmp_path / "video_frames" / "Tiny" / "one").iterdir())) == 2


def test_groups_are_read_as_they_were_written(tmp_path):
  assert read_groups(tmp_path) == {}
  write_groups(tmp_path, {"Tiny/foreign": ["b", "a"]})
  assert read_groups(tmp_path) == {"Tiny/foreign": ["a", "b"]}
  (tmp_path / "groups.json").write_text("[1]")
  with pytest.raises(StavisError, match=r"groups\.json: expected"):
    read_groups(tmp_path)


@pytest.mark.skipif(not (SHARED / "data" / "fixations").is_dir(), reason="needs ../shared/data/fixations")
def test_a_real_tree_is_read():
  found = read_tree(SHARED / "data" / "fixations")
  assert len(found.videos) == 8 and not found.skipped and not found.notes
  keiba = next(video for video in found.videos if video.name == "Keiba")
  assert (keiba.num_frames, keiba.fps, keiba.entries, keiba.sound) == (81, 10.0, (2,), None)
  assert keiba.fixations(80).shape == keiba.density(80).shape == (277, 480)
  assert keiba.fixations(0).sum() == 25 and len(keiba.frame_paths) == 81


@pytest.mark.parametrize("index", [25, 400, 100_000, 50_000_000, -1])
def test_indices_of_a_sparse_matrix_are_checked(tree, index):
  matrix = scipy.sparse.csc_matrix(np.eye(20))
  matrix.indices = matrix.indices.copy()
  matrix.indices[5] = index
  path = annotation(tree)
  scipy.io.savemat(path, {"eyeMap": matrix})
  with pytest.raises(StavisError) as error:
    eyetracking.read_fixations(path)
  assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("is_sparse", [False, True])
def test_compressed_variables_are_read_as_others(tree, is_sparse):
  path, fixations = annotation(tree), np.random.default_rng(0).random(SIZE) < 0.1
  matrix = scipy.sparse.csc_matrix(fixations) if is_sparse else fixations
  scipy.io.savemat(path, {"before": np.ones(3), "eyeMap": matrix}, do_compression=True)
  np.testing.assert_array_equal(eyetracking.read_fixations(path), fixations)


def test_what_a_compressed_variable_becomes_is_bounded(tree, monkeypatch):
  """Its header says that it is small."""
  path = annotation(tree)
  inner = io.BytesIO()
  scipy.io.savemat(inner, {"eyeMap": np.zeros((4, 4))})
  content = inner.getvalue()
  packed = zlib.compress(content[128:] + bytes(10_000))
  path.write_bytes(content[:128] + struct.pack("<II", 15, len(packed)) + packed)
  monkeypatch.setattr(eyetracking, "MAX_PIXELS", 1000)
  with pytest.raises(StavisError, match=r"a variable of more than 9000 bytes"):
    eyetracking.read_fixations(path)


def test_a_small_file_of_a_huge_picture_is_refused(tree):
  path = annotation(tree, "maps/eyeMap_00001.png")
  header = struct.pack(">IIBBBBB", 7000, 6000, 8, 0, 0, 0, 0)
  chunk = b"IHDR" + header
  rest = struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
  path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + rest)
  with pytest.raises(StavisError, match=r"7000x6000, expected at most 33554432 pixels"):
    eyetracking.read_density(path)


@pytest.mark.parametrize("row", ["one 99999999999 8.0", "one 4 1e9"])
def test_lists_cannot_claim_any_number(tree, row):
  path = tree / "fold_lists" / "Tiny_list_test_1_fps.txt"
  path.write_text(row + "\n")
  with pytest.raises(StavisError, match=r"line 1: .* expected at most 10000000 frames, 1000 a second"):
    read_tree(tree)


def test_equal_trees_have_equal_bytes(tmp_path, monkeypatch):
  """SciPy writes the time into every MATLAB file."""
  contents = []
  for name in ("a", "b"):
    make_video(tmp_path / name, seed=3)
    monkeypatch.setattr("time.asctime", lambda *_: "another day")
    files = [path for path in sorted((tmp_path / name).rglob("*")) if path.is_file()]
    contents.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
  assert contents[0] == contents[1] and len(contents[0]) == 4 * 3 + 1
  matrix = scipy.io.loadmat(tmp_path / "a" / "annotations" / "Tiny" / "one" / "fixMap_00001.mat")["eyeMap"]
  np.testing.assert_array_equal(matrix > 0, eyetracking.read_fixations(annotation(tmp_path / "a")))
