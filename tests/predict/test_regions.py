"""Tests of what encoders and editors take: boxes, blocks, windows, and the encoded video."""

import json
from pathlib import Path

import av
import numpy as np
import pytest

from helpers.media_files import clicks, onsets, read_sound, write_video
from stajax.maps.regions import block_weights, qp_offsets
from stajax.media.encoding import parse_encoding
from stajax.media.file import MediaError
from stajax.media.video import frame_times, native_frames, probe
from stajax.predict.api import SaliencyModel
from stajax.predict.per_video import open_video, write_outputs
from stajax.predict.regions import cut, regions_of
from stajax.predict.wanted import Wanted, make_outputs
from tests.predict.test_outputs import Brightness, spot


def predict(path: Path, out: Path, **wanted) -> None:
  out.mkdir(exist_ok=True)
  stream = open_video(Brightness(), path)
  write_outputs(stream, stream.provenance, make_outputs(out, path.stem, stream.provenance, Wanted("json", **wanted)))


def json_lines(path: Path) -> list[dict]:
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_boxes_blocks_and_windows_are_those_of_the_frames_maps(tmp_path):
  path = write_video(tmp_path / "a.mp4", spot(10), rate=8)  # a map for each frame
  predict(path, tmp_path / "out", roi=2, blocks=16, crop="9:16")
  prediction = SaliencyModel(Brightness()).predict(path)
  out = tmp_path / "out" / "a"
  for line, boxes in zip(json_lines(out.with_suffix(".roi.jsonl")), prediction.boxes(2), strict=True):
    assert [[box[side] for side in "xywh"] for box in line["boxes"]] == [box for box in boxes.tolist() if box[2]]
  times, windows = prediction.crop("9:16")
  lines = json_lines(out.with_suffix(".crop.jsonl"))
  assert [[line[side] for side in "xywh"] for line in lines] == windows.tolist()
  np.testing.assert_allclose([line["t"] for line in lines], times, atol=1e-6)

  weights = prediction.block_weights(16)
  stored = np.load(tmp_path / "out" / "a.blocks-000.npz")
  np.testing.assert_allclose(stored["weights"] / 255, weights, atol=0.0021)
  assert stored["side"] == 16 and stored["times"].shape == (10,)
  rows = [line.split() for line in (tmp_path / "out" / "a.blocks.txt").read_text().splitlines()]
  assert [row[1:3] for row in rows] == [["4", "3"]] * 10
  np.testing.assert_allclose(np.array(rows, float)[:, 3:], weights.reshape(10, -1), atol=6e-4)
  raw = (tmp_path / "out" / "a.blocks.bin").read_bytes()
  assert len(raw) == 10 * (8 + 12)
  for number in range(10):
    frame = raw[20 * number : 20 * (number + 1)]
    assert np.frombuffer(frame[:8], "<i4").tolist() == [4, 3]
    np.testing.assert_array_equal(np.frombuffer(frame[8:], np.int8), qp_offsets(weights[number]).ravel())


def textured(count: int, height: int = 96, width: int = 160) -> np.ndarray:
  """Noise that moves to the left under a bright square that stays at the right."""
  noise = np.random.default_rng(0).integers(0, 120, (height, width + 4 * count, 1), np.uint8).repeat(3, 2)
  frames = np.stack([noise[:, 4 * number : 4 * number + width] for number in range(count)])
  frames[:, 32:64, 96:128] += 110
  return frames


def exactness(path: Path, frames: np.ndarray) -> np.ndarray:
  """The mean squared error of a video at the square, and elsewhere."""
  found = np.stack([frame for _, frame in native_frames(path)]).astype(float)
  error = ((found - frames) ** 2).mean(axis=(0, 3))
  inside = np.zeros(error.shape, bool)
  inside[32:64, 96:128] = True
  return np.array([error[inside].mean(), error[~inside].mean()])


@pytest.mark.parametrize("codec", ["x264", "x265"])
def test_an_encoded_video_is_more_exact_where_people_look(tmp_path, codec):
  frames = textured(8)
  sound = {"sound": clicks(1, [0.3], 44100), "sound_rate": 44100}
  path = write_video(tmp_path / "a.mkv", frames, codec="ffv1", pixels="bgr0", rate=8, **sound)
  for name, strength in (("plain", 0), ("regions", 16)):
    predict(path, tmp_path / name, encode=f"crf=30,codec={codec},preset=ultrafast,strength={strength}")
  plain, regions = (tmp_path / name / "a.encoded.mp4" for name in ("plain", "regions"))
  ratio = exactness(regions, frames) / exactness(plain, frames)
  assert ratio[0] < 0.7 and ratio[1] > 1.2
  assert regions.stat().st_size < plain.stat().st_size
  np.testing.assert_allclose(list(frame_times(regions)), np.arange(8) / 8, atol=1e-4)
  assert onsets(read_sound(regions)) == pytest.approx(onsets(read_sound(path)), abs=3e-3)
  with av.open(str(regions)) as container:
    assert container.streams.video[0].codec_context.name in {"x264": ("h264",), "x265": ("hevc",)}[codec]


@pytest.mark.parametrize("changes", [{}, {"crop": "1:2"}])
def test_pictures_that_are_too_small_for_x265_are_refused(tmp_path, changes):
  """Its encoder would write beyond its memory and end the process."""
  path = write_video(tmp_path / "a.mkv", textured(2)[:, :48], codec="ffv1", pixels="bgr0", rate=8)
  with pytest.raises(MediaError, match=r"a\.mkv: its pictures would have \d+×48 pixels, but x265 needs at least 64×64"):
    predict(path, tmp_path / "out", encode="crf=30,codec=x265", **changes)
  assert not list((tmp_path / "out").glob("*encoded*"))


def test_an_encoded_crop_shows_its_windows(tmp_path):
  frames = textured(8)
  path = write_video(tmp_path / "a.mkv", frames, codec="ffv1", pixels="bgr0", rate=8)
  predict(path, tmp_path / "out", crop="1:2", encode="crf=4,preset=ultrafast")
  info = probe(tmp_path / "out" / "a.encoded.mp4")
  assert (info.width, info.height) == (48, 96)
  shown = np.stack([frame for _, frame in native_frames(tmp_path / "out" / "a.encoded.mp4")]).astype(float)
  for frame, found, line in zip(frames, shown, json_lines(tmp_path / "out" / "a.crop.jsonl"), strict=True):
    x, y, width, height = (line[side] for side in "xywh")
    assert 80 <= x <= 96  # the square is in it
    assert np.abs(found.mean(-1) - frame[y : y + height, x : x + width].mean(-1)).mean() < 6


def test_regions_are_the_offsets_of_blocks():
  saliency = np.zeros((6, 10))
  saliency[1:3, 2:5] = 1
  painted = np.zeros((96, 160), int)
  for x, y, width, height, offset in regions_of(saliency, (160, 96), 12):
    painted[y : y + height, x : x + width] = offset
  weights = block_weights(saliency[None], (160, 96), 16)[0]
  assert np.abs(painted[::16, ::16] - qp_offsets(weights)).max() <= 1
  assert len(regions_of(np.random.default_rng(0).random((8, 8)), (3840, 2160), 12)) < 600
  assert regions_of(saliency, (160, 96), 0) == []
  np.testing.assert_array_equal(cut(saliency, (48, 16, 64, 32), (160, 96)), saliency[1:3, 3:7])


@pytest.mark.parametrize("text", ["28", "crf=60", "crf=28,codec=vp9", "crf=28,preset=best", "crf=2,crf=3", "crf=9,bf=1",
                                  "codec=x265", "crf=20,strength=99", ""])  # fmt: skip
def test_settings_of_other_forms_are_refused(text):
  with pytest.raises(ValueError, match=f"^encode {text}: expected"):
    parse_encoding(text)
