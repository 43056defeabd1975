"""The videos of a data set share batches, and `predict --data` writes what `evaluate --model` scores."""

import dataclasses
import json
import shutil
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from helpers import tiny
from helpers.tiny import SIZE, SMALL, make_samples
from stajax import networks
from stajax.evaluate import __main__ as evaluate
from stajax.evaluate.kept_scores import KeptScores
from stajax.eyetracking import StavisError, StavisVideo, read_tree
from stajax.inference import dataset
from stajax.inference.clip import Clip, joined
from stajax.inference.dataset import method_maps, pack
from stajax.inference.tree_video import video_samples
from stajax.predict import __main__ as predict
from stajax.predict.per_dataset import predict_dataset
from stajax.prepare.tree_files import write_fold_lists, write_video
from stajax.scoring.videos import evaluate_videos, join_outcomes

small_programs = tiny.small_programs
random_networks, model_folder, predictor = tiny.random_networks, tiny.model_folder, tiny.predictor
pytestmark = pytest.mark.usefixtures("small_programs")


@pytest.fixture
def tree(tmp_path):
  """A video of 9 frames at 8 a second with sound, and one of a single frame without."""
  rng = np.random.default_rng(0)
  for name, count in (("long", 9), ("one frame", 1)):
    frames = [rng.integers(0, 255, (24, 36, 3), dtype=np.uint8) for _ in range(count)]
    fixations, densities = [rng.random((24, 36)) < 0.02] * count, [np.full((24, 36), 9, np.uint8)] * count
    samples = np.sin(np.arange(18000) ** 1.2 / 10) if name == "long" else None
    write_video(tmp_path, "Tiny", name, frames, samples, zip(fixations, densities))
  write_fold_lists(tmp_path, "Tiny", [("long", 9, 8.0), ("one frame", 1, 8.0)])
  return tmp_path


def test_method_maps(predictor, tree, monkeypatch):
  """Every native frame is predicted, with neighbours two frames away; only the maps that are asked for are yielded."""
  videos = {video.name: video for video in read_tree(tree).videos}
  maps, calls, run = method_maps(predictor), [], predictor.start_method_maps

  def watched(clip, *reservoir):
    calls.extend((clip.reach, sound is not None) for _, sound in clip.samples)
    return run(clip, *reservoir)

  monkeypatch.setattr(predictor, "start_method_maps", watched)
  methods = [*networks.STUDENTS, "final", "final_no_switch", "spectral_residual"]
  some = list(maps(videos["long"], [1, 4, 8]))
  assert calls == [(2, True)] * 9
  assert [frame for frames, _ in some for frame in frames] == [1, 4, 8]
  (every,) = (found for _, found in maps(videos["long"], range(9)))
  assert list(every) == list(some[0][1]) == methods
  for name, size in zip(methods, (SIZE, SMALL, SMALL, SIZE, SIZE, 64), strict=True):
    chosen = np.concatenate([found[name] for _, found in some])
    assert chosen.shape == (3, size, size) and chosen.dtype == np.uint8 and (chosen.max(axis=(1, 2)) == 255).all()
    np.testing.assert_array_equal(every[name][[1, 4, 8]], chosen)
  calls.clear()
  ((frames, found),) = maps(videos["one frame"], [0])
  assert frames == [0] and found["final"].shape == (1, SIZE, SIZE) and calls == [(2, False)]


def test_a_broken_frame_is_named(predictor, tree):
  video = next(video for video in read_tree(tree).videos if video.name == "long")
  video.frame_paths[3].write_bytes(b"no picture")
  with pytest.raises(StavisError, match=r"img_00004\.jpg: not a readable frame"):
    list(method_maps(predictor)(video, [0]))


def test_sound_of_another_kind_is_heard_alike_or_says_what_is_missing(tree, monkeypatch):
  soundfile = pytest.importorskip("soundfile")
  (video,) = (video for video in read_tree(tree).videos if video.name == "long")
  expected = [sound for _, sound in video_samples(video, SMALL)]
  soundfile.write(video.sound.with_suffix(".flac"), soundfile.read(video.sound, dtype="int16")[0], 16000)
  video.sound.unlink()
  (video,) = (video for video in read_tree(tree).videos if video.name == "long")
  assert video.sound.suffix == ".flac"
  for window, (_, sound) in zip(expected, video_samples(video, SMALL), strict=True):
    np.testing.assert_array_equal(sound, window)
  monkeypatch.setitem(sys.modules, "librosa", None)
  with pytest.raises(StavisError, match=r"long\.flac: .*pip install 'stajax\[train\]'"):
    next(video_samples(video, SMALL))


@pytest.fixture
def short_videos(tmp_path):
  """Seven videos of 1 to 7 frames, every other one with sound."""
  rng = np.random.default_rng(1)
  for count in range(1, 8):
    frames = [rng.integers(0, 255, (24, 36, 3), dtype=np.uint8) for _ in range(count)]
    fixations, densities = [rng.random((24, 36)) < 0.02] * count, [rng.integers(0, 255, (24, 36), np.uint8)] * count
    samples = np.sin(np.arange(16000) ** (1 + count / 10) / 10) if count % 2 else None
    write_video(tmp_path / "tree", "Tiny", f"v{count}", frames, samples, zip(fixations, densities))
  write_fold_lists(tmp_path / "tree", "Tiny", [(f"v{count}", count, 4.0) for count in range(1, 8)])
  return tmp_path / "tree"


def test_videos_that_are_computed_together():
  def video(count, fps=4.0):
    return StavisVideo("D", f"{count} {fps}", fps, count, (1,), (), {}, {})

  videos = [video(100), video(20), video(300), video(9, 8.0), video(9), video(5, None), video(8), video(4, 8.4)]
  found = [[other.name for other in together] for together in pack(videos, 4.0)]
  assert found == [["100 4.0", "20 4.0"], ["300 4.0"], ["9 8.0", "4 8.4"], ["9 4.0", "8 4.0"], ["5 None"]]
  assert [len(together) for together in pack(videos[:2] * 3, 4.0, 360)] == [6]


@pytest.mark.parametrize("reach", [1, 3])
def test_joined_videos_have_the_maps_of_each_alone(predictor, reach):
  """Short and long companions too; nobody's neighbours are of another video."""
  videos = [make_samples(count, seed=count) for count in (1, 2, 5, 9, 1, 14)]
  together = predictor.clip_maps(joined(videos, reach))
  for name in together:
    alone = np.concatenate([predictor.clip_maps(Clip(samples, reach))[name] for samples in videos])
    np.testing.assert_allclose(together[name], alone, rtol=1e-5, atol=1e-5, err_msg=name)
    assert np.std(alone, axis=0).max() > 1e-4


def test_short_videos_share_calls_of_the_device(short_videos, model_folder, monkeypatch):
  """28 frames in batches of 16 are two calls for each of four networks, where seven videos would be 28."""
  calls = tiny.count_calls(monkeypatch)
  predictor = tiny.load_predictor(model_folder, batch=16)
  videos = read_tree(short_videos).videos
  found = list(dataset.compute_dataset_maps(predictor, predictor.start_final_maps, videos))
  assert [(video.name, maps.shape) for video, maps in found] == [(f"v{n}", (n, SIZE, SIZE)) for n in range(1, 8)]
  assert calls == dict.fromkeys(("encode_frames", "encode_sound", "fuse", "reason"), 8)
  calls.clear()
  alone = [
    part for video in videos for part in dataset.compute_dataset_maps(predictor, predictor.start_final_maps, [video])
  ]
  assert calls["encode_frames"] == 28
  for (_, together), (_, maps) in zip(found, alone, strict=True):
    np.testing.assert_allclose(together, maps, atol=1e-4)  # scaled to [0, 1], which may enlarge rounding


def test_method_maps_are_kept_until_they_are_asked_for(short_videos, predictor, monkeypatch):
  """They are asked for in any order, and more than once; one that cannot be read is an error when it is asked for."""
  videos, begun, run = read_tree(short_videos).videos, [], predictor.start_method_maps
  videos[2].frame_paths[1].write_bytes(b"no picture")
  monkeypatch.setattr(predictor, "start_method_maps", lambda clip, *_: begun.append(len(clip)) or run(clip))
  maps, expected = method_maps(predictor, videos), method_maps(predictor)
  for at in (0, 6, 3):
    ((frames, found),) = maps(videos[at], range(at + 1))
    assert begun == [25] and frames == list(range(at + 1)) and found["final"].shape == (at + 1, SIZE, SIZE)
  with pytest.raises(StavisError, match=r"img_00002\.jpg: not a readable frame"):
    list(maps(videos[2], [0]))
  assert begun == [25]
  ((_, again),) = maps(videos[3], range(4))
  ((_, alone),) = expected(videos[3], range(4))
  for name in alone:
    np.testing.assert_array_equal(again[name], found[name])
    assert np.abs(again[name].astype(int) - alone[name]).max() <= 1


def run(*arguments):
  return predict.main([str(argument) for argument in arguments])


def read_maps(out):
  return {path.relative_to(out).as_posix(): np.asarray(Image.open(path)) for path in sorted(out.rglob("*.png"))}


def test_a_whole_set_is_predicted_and_scored_the_same(short_videos, model_folder, tmp_path, capsys):
  """The written maps have the scores of the model; videos that are there already are left alone."""
  out, data = tmp_path / "maps", f"stavis:{short_videos}"
  arguments = ["--model", model_folder, "--data", data, "--out", out]
  assert run(*arguments) == 0
  assert "7 of 7 videos, 0 were already there, 28 maps" in capsys.readouterr().out
  written = read_maps(out)
  assert list(written) == [f"Tiny/v{count}/img_{n:05d}.png" for count in range(1, 8) for n in range(1, count + 1)]
  assert all(x.shape == (SIZE, SIZE) and x.dtype == np.uint8 and x.max() == 255 for x in written.values())
  about = json.loads((out / "predict.json").read_text())
  assert about["trained_on"] == "synthetic" and set(about["sha256"]) == {networks.SWITCH, *networks.STUDENTS}

  for given, where in ((["--model", model_folder], "by model"), (["--maps", out], "by maps")):
    common = ["--data", data, "--out", tmp_path / where, "--processes", 1]
    assert evaluate.main([str(argument) for argument in (*given, *common)]) == 0
  found = [json.loads((tmp_path / where / "scores.json").read_text())["Tiny"] for where in ("by model", "by maps")]
  by_model, by_maps = found
  assert by_maps["maps"] == by_model["final"] and by_maps["maps"] != by_model["sta"]

  kept = out / "Tiny" / "v3" / "img_00002.png"
  kept.write_bytes(b"untouched")
  (out / "Tiny" / "v5").rename(tmp_path / "gone")
  (out / "Tiny" / ".v5.partial").mkdir()
  assert run(*arguments) == 0 and kept.read_bytes() == b"untouched"
  assert "1 of 7 videos, 6 were already there, 5 maps" in capsys.readouterr().out
  again = np.stack([np.asarray(Image.open(path)) for path in sorted((out / "Tiny" / "v5").iterdir())])
  before = np.stack([written[f"Tiny/v5/img_{n:05d}.png"] for n in range(1, 6)])
  assert np.abs(again.astype(int) - before).max() <= 1 and not (out / "Tiny" / ".v5.partial").exists()

  assert run(*arguments, "--student", "sta") == 2
  assert "predict.json: the maps here are of another model" in capsys.readouterr().err
  (out / "predict.json").unlink()
  assert run(*arguments) == 2 and "holds maps but no predict.json" in capsys.readouterr().err


@pytest.mark.parametrize("student", networks.STUDENTS)
def test_a_student_alone(short_videos, model_folder, predictor, tmp_path, student):
  """Its maps are the same as among the three."""
  arguments = ["--model", model_folder, "--data", f"stavis:{short_videos}", "--out", tmp_path / "o"]
  assert run(*arguments, "--student", student) == 0
  found, size = read_maps(tmp_path / "o"), SMALL if "plus" in student else SIZE
  for video in read_tree(short_videos).videos:
    ((_, expected),) = method_maps(predictor)(video, range(video.num_frames))
    for number, values in enumerate(expected[student], 1):
      written = found[f"Tiny/{video.name}/img_{number:05d}.png"]
      assert written.shape == (size, size) and np.abs(written.astype(int) - values).max() <= 1


def test_a_bad_video_does_not_stop_the_others(short_videos, model_folder, tmp_path, capsys):
  """Annotations are not needed."""
  (short_videos / "video_frames" / "Tiny" / "v4" / "img_00003.jpg").write_bytes(b"no picture")
  (short_videos / "annotations").rename(tmp_path / "elsewhere")
  arguments = ["--model", model_folder, "--data", f"stavis:{short_videos}", "--out", tmp_path / "o", "--fast"]
  assert run(*arguments, "--databases", "Tiny") == 1
  captured = capsys.readouterr()
  lines = [line for line in captured.err.splitlines() if "map/s" not in line]
  assert len(lines) == 1 and "v4/img_00003.jpg: not a readable frame" in lines[0]
  assert "6 of 7 videos, 0 were already there, 24 maps" in captured.out and "1 failed" in captured.out
  assert sorted(path.name for path in (tmp_path / "o" / "Tiny").iterdir()) == ["v1", "v2", "v3", "v5", "v6", "v7"]


def test_a_long_video_that_breaks_leaves_nothing(predictor, tmp_path):
  """Its first window was written before."""
  frames = [np.full((8, 8, 3), i, np.uint8) for i in range(150)]
  for name in ("broken", "fine"):
    write_video(tmp_path / "tree", "Tiny", name, frames, None, None)
  write_fold_lists(tmp_path / "tree", "Tiny", [("broken", 150, 4.0), ("fine", 150, 4.0)])
  videos = read_tree(tmp_path / "tree", need_annotations=False).videos
  videos[0].frame_paths[140].write_bytes(b"no picture")
  out = tmp_path / "out"
  done = [(video.name, number, error is None) for video, number, error in predict_dataset(predictor, videos, out)]
  assert sorted(done) == [("broken", 0, False), ("fine", 150, True)]
  assert sorted(path.name for path in (out / "Tiny").iterdir()) == ["fine"]
  assert len(list((out / "Tiny" / "fine").iterdir())) == 150


def test_devices_and_processes_share_the_videos(short_videos, model_folder, tmp_path, monkeypatch, capsys):
  """Maps are the same bit for bit as of one device, also if a part was stopped and others go on with another count."""
  monkeypatch.setattr(dataset, "WINDOW", 8)  # five packs, the first one of three videos
  devices = jax.local_devices()
  arguments = ["--model", model_folder, "--data", f"stavis:{short_videos}", "--fast", "--batch", "4"]

  def predict_part(out, num_devices, *part):
    with monkeypatch.context() as patch:
      patch.setattr(jax, "local_devices", lambda: devices[:num_devices])
      launched = tiny.count_devices(patch)
      assert run(*arguments, "--out", tmp_path / out, *part) == 0
    return launched, capsys.readouterr().out.splitlines()[-1]

  launched, line = predict_part("one", 1)
  assert set(launched) == {devices[0]} and "7 of 7 videos, 0 were already there, 28 maps" in line
  launched, _ = predict_part("three", 3)
  assert set(launched) == set(devices[:3])
  _, line = predict_part("parts", 1, "--part", "0/2")
  assert "part 0/2: 5 of 7 videos, 2 of all are not there yet" in line
  for name in ("v2", "v5"):  # as if it had been killed before
    shutil.rmtree(tmp_path / "parts" / "Tiny" / name)
  for part, expected in (
    ("2/3", "1 of 7 videos, 3 of all"),
    ("0/3", "2 of 7 videos, 1 of all"),
    ("1/3", "1 of 7 videos, 0 of all"),
  ):
    _, line = predict_part("parts", 1, "--part", part)
    assert f"part {part}: {expected} are not there yet" in line
  expected = read_maps(tmp_path / "one")
  for out in ("three", "parts"):
    found = read_maps(tmp_path / out)
    assert found.keys() == expected.keys() and len(found) == 28
    for name, values in expected.items():
      np.testing.assert_array_equal(found[name], values, err_msg=f"{out} {name}")


def test_a_stopped_evaluation_goes_on_on_other_devices_and_in_other_processes(
  short_videos, model_folder, tmp_path, monkeypatch, capsys
):
  """The results are the same files, and the scores of single videos are gone in the end."""
  monkeypatch.setattr(dataset, "WINDOW", 8)  # five packs, the first one of three videos
  (short_videos / "video_frames" / "Tiny" / "v4" / "img_00003.jpg").write_bytes(b"no picture")
  devices, scored = jax.local_devices(), []
  real = KeptScores.save

  def save(self, video, outcome):
    if len(scored) == stop_after:
      raise KeyboardInterrupt
    scored.append(video.name)
    real(self, video, outcome)

  monkeypatch.setattr(KeptScores, "save", save)
  common = ["--model", model_folder, "--data", f"stavis:{short_videos}", "--batch", 4, "--processes", 1]

  def run_part(out, num_devices, *part):
    scored.clear()
    with monkeypatch.context() as patch:
      patch.setattr(jax, "local_devices", lambda: devices[:num_devices])
      launched = tiny.count_devices(patch)
      code = evaluate.main([str(argument) for argument in (*common, "--out", tmp_path / out, *part)])
    return code, set(launched), sorted(scored), capsys.readouterr().out

  def results(out):
    return {path.name: path.read_bytes() for path in sorted((tmp_path / out).iterdir())}

  stop_after = -1
  assert run_part("one", 1)[:3] == (1, {devices[0]}, [f"v{n}" for n in range(1, 8)])
  assert {"evaluation.json", "index.html", "per_video.csv", "scores.json"} <= set(results("one"))
  assert all(f"{word}: Tiny/" in (tmp_path / "one" / "index.html").read_text() for word in ("Best", "Worst"))
  stop_after = 4
  assert run_part("other", 1)[0] == 130 and list(results_of(tmp_path / "other")) == [".scores"]
  stop_after = -1
  # v1, v2 and v3 are there; v4 is tried again.
  code, used, names, text = run_part("other", 2, "--part", "1/2")
  assert (code, names) == (1, ["v4", "v6"]) and "part 1/2: 2 videos are done, 2 of all are not" in text
  code, used, names, _ = run_part("other", 3, "--part", "0/1")
  assert (code, names) == (1, ["v4", "v5", "v7"]) and len(used) > 1
  assert results("other") == results("one")


def results_of(folder):
  return sorted(path.name for path in folder.iterdir())


def test_kept_scores_count_while_their_files_are_the_same(short_videos, tmp_path):
  videos = read_tree(short_videos).videos
  evaluation = evaluate_videos(videos, constant_maps, processes=1)
  kept = KeptScores.open(tmp_path, {"batch": 8})
  for video, scores in zip(videos, evaluation.videos, strict=True):
    kept.save(video, [scores])
  kept.save(videos[1], "broken")
  again = KeptScores.open(tmp_path, {"batch": 8}).load_all(videos)
  assert again.pop(("Tiny", "v2")) == "broken"
  found = join_outcomes(videos, again, evaluation.settings)
  assert len(found.videos) == 6
  for scores, expected in zip(found.videos, [x for x in evaluation.videos if x.name != "v2"], strict=True):
    np.testing.assert_equal(dataclasses.asdict(scores), dataclasses.asdict(expected))
  assert KeptScores.open(tmp_path, {"batch": 4}).load_all(videos) == {}
  videos[0].density_paths[0].write_bytes(videos[0].density_paths[0].read_bytes() + b" ")
  (kept.folder / next(path.name for path in sorted(kept.folder.iterdir()))).write_bytes(b"damaged")
  assert kept.load(videos[0]) is None and len(kept.load_all(videos)) in (5, 6)
  kept.remove()
  kept.remove()  # as another process that is as late
  assert kept.load_all(videos) == {} and list(tmp_path.glob(".scores*")) == []


def constant_maps(video, frames):
  yield list(frames), {"m": np.tile(np.arange(64, dtype=np.uint8).reshape(8, 8), (len(frames), 1, 1))}


@pytest.mark.parametrize(
  "arguments, expected",
  [
    (["--data", "stavis:{tree}", "--part", "2/2"], "--part 2/2: expected the number of a process"),
    (["video.mp4", "--part", "0/2"], "--part 0/2: expected --data with it"),
    (["--data", "mit:x"], "expected NAME:ROOT with NAME one of stavis"),
    (["--data", "stavis:{tree}", "video.mp4"], "expected either a data set or videos"),
    (["--data", "stavis:{tree}", "--fast", "--student", "sta_plus_long"], "expected one of them"),
    (["--data", "stavis:{tree}", "--databases", "DIEM"], "no database DIEM"),
    (["--data", "stavis:{tree}/video_frames"], "not a tree in the STAViS layout"),
    ([], "no video"),
  ],
)
def test_bad_input_is_one_line(short_videos, model_folder, tmp_path, capsys, arguments, expected):
  filled = [argument.format(tree=short_videos) for argument in arguments]
  assert run(*filled, "--model", model_folder, "--out", tmp_path / "o") == 2
  error = capsys.readouterr().err
  assert expected in error and error.count("\n") == 1 and not (tmp_path / "o").exists()
