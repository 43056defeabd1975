"""Tests of what `stajax predict` writes, with a model whose maps are known: the blurred brightness of the frames."""

import json
import sys
import tracemalloc
import types
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from helpers.media_files import clicks, onsets, ramp, read_sound, write_video
from stajax.maps.statistics import frame_statistics
from stajax.media import video_sound
from stajax.media.file import MediaError
from stajax.media.video import frame_times, native_frames, probe
from stajax.media.video_writer import VideoWriter
from stajax.predict import outputs, per_video
from stajax.predict.__main__ import main
from stajax.predict.inputs import find_videos
from stajax.predict.per_video import Sampling, Summary, open_video, write_outputs
from stajax.predict.wanted import Wanted, make_outputs
from tests.media.test_video import bad_files


class Brightness:
  """A predictor that lags behind by a few samples, as a real one does."""

  rate, side, confidence = 8.0, 24, None
  made_with = types.MappingProxyType({"trained_on": "brightness"})

  def __init__(self, trained_on: str = "ave"):
    self.trained_on, self.heard, self.reach = trained_on, [], None

  def maps(self, samples: Iterator[tuple[np.ndarray, np.ndarray | None]], reach: int, _) -> Iterator[np.ndarray]:
    self.reach, waiting = reach, []
    for frame, sound in samples:
      assert frame.shape == (24, 24, 3) and (sound is None or sound.shape == (257, 98))
      self.heard.append(sound is not None)
      waiting.append(gaussian_filter(frame.mean(-1) / 255, 1).astype(np.float32))
      if len(waiting) > 3:
        yield waiting.pop(0)
    yield from waiting


def predict_video(predictor, path: Path, out: Path, every_frame=False, overlay=True, model="") -> Summary:
  stream = open_video(predictor, path, Sampling(1 if every_frame else None), model)
  files = make_outputs(out, path.stem, stream.provenance, Wanted(overlay=overlay))
  return write_outputs(stream, stream.provenance, files)


def spot(count: int, height: int = 48, width: int = 64) -> np.ndarray:
  """A bright square that moves to the right, 4 pixels a frame."""
  frames = np.full((count, height, width, 3), 16, np.uint8)
  for number in range(count):
    frames[number, 10:18, 4 * number % (width - 8) :][:, :8] = 240
  return frames


def read_parts(out: Path, name: str) -> dict[str, np.ndarray]:
  parts = [np.load(path, allow_pickle=False) for path in sorted(out.glob(f"{name}.maps-*.npz"))]
  return {key: np.concatenate([part[key] for part in parts]) if key in ("maps", "times") else parts[0][key]
          for key in parts[0].files}  # fmt: skip


@pytest.fixture
def out(tmp_path) -> Path:
  (tmp_path / "out").mkdir()
  return tmp_path / "out"


def test_the_three_outputs_of_a_video(tmp_path, out):
  path = write_video(tmp_path / "a.mp4", spot(14), sound=clicks(1.4, [0.3, 0.9]))
  model = Brightness("synthetic")
  summary = predict_video(model, path, out, model="m")
  assert sorted(file.name for file in out.iterdir()) == ["a.json", "a.maps-000.npz", "a.overlay.mp4"]
  assert (summary.frames, summary.maps, summary.notes) == (14, 12, ())
  assert model.reach == 1 and all(model.heard)

  stored = read_parts(out, "a")
  assert stored["maps"].shape == (12, 24, 24) and stored["maps"].dtype == np.uint8
  assert (stored["maps"].max((1, 2)) == 255).all()
  np.testing.assert_allclose(stored["times"], np.arange(12) / 8)
  assert stored["times"].dtype == np.float64 and stored["rate"] == 8 and stored["size"].tolist() == [64, 48]
  assert stored["trained_on"] == "synthetic"

  written = json.loads((out / "a.json").read_text())
  assert written["trained_on"] == "synthetic" and written["model"] == "m" and written["video"] == "a.mp4"
  assert written["rate"] == 8 and written["size"] == [64, 48]
  assert [entry["frame"] for entry in written["frames"]] == list(range(14))
  np.testing.assert_allclose([entry["time"] for entry in written["frames"]], np.arange(14) / 10, atol=1e-3)
  for entry in written["frames"][:11]:
    x, y = entry["peak"]
    # The maps on either side are of frames at most 0.125 s apart, so the peak is up to two frames behind or ahead.
    assert abs(x - (4 * entry["frame"] + 3.5)) <= 10 and abs(y - 13.5) <= 3

  drawn = out / "a.overlay.mp4"
  np.testing.assert_allclose(list(frame_times(drawn)), list(frame_times(path)), atol=1e-4)
  assert probe(drawn).duration == pytest.approx(1.4, abs=0.02)
  assert onsets(read_sound(drawn)) == pytest.approx(onsets(read_sound(path)), abs=2e-3)
  with av.open(str(drawn)) as container:
    assert [stream.codec_context.codec.canonical_name for stream in container.streams] == ["h264", "aac"]


def test_native_frames_are_interpolated_between_grid_maps(tmp_path, out):
  path = write_video(tmp_path / "a.mkv", spot(9), [0, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.9, 2.0], "ffv1", "bgr0")
  predict_video(Brightness(), path, out, overlay=False)
  stored = read_parts(out, "a")
  maps = stored["maps"].astype(np.float64) / 255
  for entry in json.loads((out / "a.json").read_text())["frames"]:
    before = int(np.searchsorted(stored["times"], entry["time"], "right")) - 1
    after, part = min(before + 1, len(maps) - 1), (entry["time"] - stored["times"][before]) * 8
    expected = frame_statistics((1 - part) * maps[before] + part * maps[after], (64, 48))
    np.testing.assert_allclose(entry["centroid"], expected["centroid"], atol=0.1)
    np.testing.assert_allclose(entry["spread"], expected["spread"], atol=2e-3)
  assert len(maps) == 17


def test_every_frame_computes_a_map_for_each(tmp_path, out):
  path = write_video(tmp_path / "a.mp4", spot(26), rate=25)
  model = Brightness()
  summary = predict_video(model, path, out, every_frame=True)
  assert (summary.frames, summary.maps, model.reach) == (26, 26, 3)
  stored = read_parts(out, "a")
  written = json.loads((out / "a.json").read_text())
  np.testing.assert_allclose(stored["times"], [entry["time"] for entry in written["frames"]], atol=1e-6)
  for saliency, entry in zip(stored["maps"], written["frames"]):
    np.testing.assert_allclose(frame_statistics(saliency, (64, 48))["centroid"], entry["centroid"], atol=0.3)


@pytest.mark.parametrize(
  "name, video, pixels, sound, heard_as",
  [
    ("a.webm", "libvpx", "yuv420p", "vorbis", "aac"),
    ("a.webm", "libvpx", "yuv420p", "libopus", "opus"),
    ("a.mkv", "ffv1", "gray10le", "pcm_s16le", "aac"),
    ("a.ts", "libx264", "yuv420p", "aac", "aac"),
    ("a.ts", "mpeg4", "yuv420p", "ac3", "ac3"),
    ("a.avi", "mpeg4", "yuv420p", "libmp3lame", "mp3"),
    ("a.mkv", "libx264", "yuv420p", "flac", "aac"),
  ],
)
def test_overlay_keeps_sound_in_sync_in_any_container(tmp_path, out, name, video, pixels, sound, heard_as):
  channels = 2 if sound in ("vorbis", "ac3") else 1
  wave = clicks(2, [0.5, 1.25], 48000, channels)
  path = write_video(
    tmp_path / name, spot(20), codec=video, pixels=pixels, sound=wave, sound_codec=sound, sound_rate=48000
  )
  assert predict_video(Brightness(), path, out).notes == ()
  drawn = out / "a.overlay.mp4"
  with av.open(str(drawn)) as container:
    assert container.streams.audio[0].codec_context.codec.canonical_name == heard_as
  assert onsets(read_sound(drawn)) == pytest.approx(onsets(read_sound(path)), abs=3e-3)
  np.testing.assert_allclose(list(frame_times(drawn)), list(frame_times(path)), atol=1e-4)


def test_overlay_of_a_picture_that_starts_later_than_its_sound(tmp_path, out):
  times = [1.25 + number / 10 for number in range(20)]
  for codec in ("aac", "pcm_s16le"):
    path = write_video(tmp_path / f"{codec}.mkv", spot(20), times, sound=clicks(3, [1.0, 2.0]), sound_codec=codec)
    predict_video(Brightness(), path, out)
    assert onsets(read_sound(out / f"{codec}.overlay.mp4")) == pytest.approx([0.75], abs=4e-3)
    assert list(frame_times(out / f"{codec}.overlay.mp4"))[-1] == pytest.approx(1.9, abs=2e-3)


def test_overlay_of_odd_sizes_rotation_and_one_frame(tmp_path, out):
  odd = write_video(tmp_path / "odd.mkv", spot(3, 27, 35), codec="ffv1", pixels="bgr0")
  turned = write_video(tmp_path / "turned.mp4", spot(3), rotation=90)
  one = write_video(tmp_path / "one.mp4", spot(1))
  for path, size, count in ((odd, (36, 28), 3), (turned, (48, 64), 3), (one, (64, 48), 1)):
    model = Brightness()
    summary = predict_video(model, path, out)
    info = probe(out / f"{path.stem}.overlay.mp4")
    assert (info.width, info.height, info.has_sound, summary.frames) == (*size, False, count)
    assert not any(model.heard)
    with av.open(str(out / f"{path.stem}.overlay.mp4")) as container:
      assert not container.streams.audio


def test_sound_that_is_silent_or_broken_is_not_used(tmp_path, out):
  silent = write_video(tmp_path / "silent.mp4", spot(5), sound=np.zeros((1, 22050), np.float32))
  model = Brightness()
  assert any("silent" in note for note in predict_video(model, silent, out).notes)
  assert not any(model.heard)
  assert json.loads((out / "silent.json").read_text())["notes"]
  opus = {"codec": "libvpx", "sound_codec": "libopus", "sound_rate": 48000}
  broken = write_video(tmp_path / "broken.webm", spot(5), sound=clicks(0.5, [0.1], 48000), **opus)
  content = bytearray(broken.read_bytes())
  content[content.index(b"OpusHead") + 9] = 200  # channels
  broken.write_bytes(content)
  model = Brightness()
  assert any("decoded" in note for note in predict_video(model, broken, out).notes)
  assert not any(model.heard) and not probe(out / "broken.overlay.mp4").has_sound


def test_sound_that_cannot_be_written_does_not_stop_the_overlay(tmp_path, monkeypatch):
  path = write_video(tmp_path / "a.mkv", spot(5), sound=clicks(0.5, [0.1]), sound_codec="pcm_s16le")
  blocks = video_sound.aligned_sound

  def broken(*arguments, **options):
    yield next(blocks(*arguments, **options))
    raise MediaError("no more sound")

  monkeypatch.setattr(video_sound, "aligned_sound", broken)
  notes = []
  with VideoWriter(tmp_path / "o.mp4", probe(path), notes) as writer:
    for time, frame in native_frames(path):
      writer.write(time, frame)
  assert len(notes) == 1 and len(list(frame_times(tmp_path / "o.mp4"))) == 5


def test_parts_are_full_and_nothing_of_an_earlier_run_remains(tmp_path, out, monkeypatch):
  monkeypatch.setattr(outputs, "MAPS_PER_PART", 4)
  path = write_video(tmp_path / "a.mp4", ramp(11), rate=8)
  for stale in ("a.maps-003.npz", "a.maps-1234.npz", "a.json", "a.mp4.maps-009.npz", "ab.maps-009.npz"):
    (out / stale).write_text("old")
  predict_video(Brightness(), path, out, overlay=False)
  names = sorted(file.name for file in out.iterdir())
  assert names == ["a.json", *(f"a.maps-00{k}.npz" for k in range(3)), "a.mp4.maps-009.npz", "ab.maps-009.npz"]
  assert [len(np.load(out / f"a.maps-00{part}.npz")["maps"]) for part in range(3)] == [4, 4, 3]


def test_a_failure_leaves_no_half_written_output(tmp_path, out, monkeypatch):
  monkeypatch.setattr(outputs, "MAPS_PER_PART", 4)
  path = write_video(tmp_path / "a.mp4", ramp(20), rate=8)

  class Failing(Brightness):
    def maps(self, samples, reach, fragments):
      for number, saliency in enumerate(super().maps(samples, reach, fragments)):
        yield saliency * (np.nan if number == 10 else 1)

  with pytest.raises(ValueError, match="not finite"):
    predict_video(Failing(), path, out)
  assert sorted(file.name for file in out.iterdir()) == ["a.maps-000.npz", "a.maps-001.npz"]  # complete in themselves


@pytest.mark.parametrize("number", [3, 19])  # while others are drawn, and the last one
def test_what_the_encoder_raises_leaves_no_overlay(number, tmp_path, out, monkeypatch):
  path, write = write_video(tmp_path / "a.mp4", ramp(20), rate=8), VideoWriter.write

  def failing(writer, time, *arguments):
    if time > (number - 0.5) / 8:
      raise OSError(28, "No space left on device")
    write(writer, time, *arguments)

  monkeypatch.setattr(VideoWriter, "write", failing)
  with pytest.raises(OSError, match="No space left"):
    predict_video(Brightness(), path, out)
  assert not list(out.glob("*.mp4*"))


def test_memory_does_not_grow_with_length(tmp_path, out, monkeypatch):
  monkeypatch.setattr(outputs, "MAPS_PER_PART", 10)
  monkeypatch.setattr("stajax.media.sound_windows.KEPT_COLUMNS", 300)
  monkeypatch.setattr(per_video, "READ_AHEAD", 8)

  def peak(count: int) -> int:
    frames = np.broadcast_to(ramp(1), (count, 48, 64, 3))
    wave = clicks(count / 8, [0.5], 16000)
    path = write_video(tmp_path / f"{count}.mp4", frames, rate=8, sound=wave, sound_rate=16000)
    tracemalloc.start()
    predict_video(Brightness(), path, out)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most

  peak(240)  # fills the caches that stay between videos, and lets Python's table of strings grow
  short, long = peak(80), peak(240)
  # Threads may meet at a strip of sound more or less, of 0.4 MB. A map leaves 3 kB behind at most.
  assert long < 1.2 * short


def test_names_of_videos_with_the_same_stem(tmp_path):
  for name in ("b/a.mp4", "a.webm", "a.mp4", "c.mov", ".hidden.mp4", "notes.txt", "c.overlay.mp4", "b/.git/d.mp4"):
    (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "in" / name).touch()
  found = find_videos([tmp_path / "in", tmp_path / "in" / "a.mp4", tmp_path / "in" / "b" / "a.mp4"], tmp_path)
  names = {str(path.relative_to(tmp_path / "in")): name for path, name in found}
  assert names == {"a.mp4": "a", "a.webm": "a.webm", "b/a.mp4": "a.mp4", "c.mov": "c"}
  with pytest.raises(FileExistsError, match=r"c\.overlay\.mp4"):
    find_videos([tmp_path / "in" / "c.mov", tmp_path / "in" / "c.overlay.mp4"], tmp_path / "in")


@pytest.fixture
def model(tmp_path, monkeypatch) -> Path:
  prediction = types.ModuleType("stajax.inference.predictor")
  prediction.load_predictor = lambda folder, batch, only=None, centre=None, precision=None: Brightness()
  monkeypatch.setitem(sys.modules, "stajax.inference.predictor", prediction)
  (tmp_path / "model").mkdir()
  return tmp_path / "model"


def test_command_goes_on_after_bad_files(tmp_path, model, capsys):
  (tmp_path / "in").mkdir()
  bad = [name for name in bad_files(tmp_path / "in") if (tmp_path / "in" / name).is_file()]
  given = [str(tmp_path / "in" / name) for name in [*bad, "clip.mp4"]]
  code = main(["--model", str(model), "--out", str(tmp_path / "new" / "out"), *given])
  captured = capsys.readouterr()
  assert code == 1
  lines = [line for line in captured.err.splitlines() if "map/s" not in line and not line.startswith("note: ")]
  assert len(lines) == len(bad) and all(name in line for name, line in zip(bad, lines))
  assert "1 of 9 videos, 3 frames, 3 maps" in captured.out and "8 failed" in captured.out
  assert len(list((tmp_path / "new" / "out").iterdir())) == 3


def test_command_on_a_folder_and_exit_codes(tmp_path, model, capsys):
  (tmp_path / "in").mkdir()
  write_video(tmp_path / "in" / "a.mp4", spot(3))
  (tmp_path / "in" / "notes.txt").write_text("not media")
  arguments = ["--model", str(model), "--out", str(tmp_path / "out"), "--no-overlay"]
  assert main([str(tmp_path / "in"), *arguments]) == 0
  assert main([str(tmp_path / "in" / "notes.txt"), *arguments]) == 3  # all failed
  assert capsys.readouterr().err.startswith(f"stajax predict: {tmp_path / 'in' / 'notes.txt'}: ")
  assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.json", "a.maps-000.npz"]
  for wrong in ([str(tmp_path / "none.mp4")], [], [str(model)], [str(tmp_path / "in"), "--batch", "0"]):
    capsys.readouterr()
    assert main([*wrong, *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
  assert main([str(tmp_path / "in"), "--model", str(tmp_path / "nothing"), "--out", str(tmp_path / "out")]) == 2
  with pytest.raises(SystemExit, match="2"):
    main(["--wrong"])


@pytest.mark.parametrize("times, varies", [
  ([k / 10 for k in range(10)] + [6 + k / 10 for k in range(10)], True),  # a still picture of five seconds
  ([k / 30 for k in range(60)] + [2 + k / 10 for k in range(20)], True),  # the rate changes
  ([k / 10 + 0.02 * (k % 2) for k in range(40)], False),  # a phone, whose frames come a little early or late
  ([k / 10 for k in range(60) if k != 30], False),  # a frame is missing
])  # fmt: skip
def test_neighbours_are_as_far_apart_as_on_the_grid_where_the_rate_varies(tmp_path, times, varies):
  path = write_video(tmp_path / "a.mkv", spot(len(times)), times=times)
  stream = open_video(Brightness(), path, Sampling(1))
  at = np.array([time for time, _ in stream])
  assert stream.provenance.info.rate_varies is varies
  said = [note for note in stream.provenance.notes if "its rate varies" in note]
  if varies:
    rate = stream.provenance.rate
    np.testing.assert_allclose(at, np.arange(len(at)) / rate, atol=2e-3)
    assert len(said) == 1 and abs(len(at) - (times[-1] + 0.1) * rate) <= 3
  else:
    np.testing.assert_allclose(at, times, atol=2e-3)
    assert not said
