"""Tests of prediction from Python, which gives what the command writes."""

import json

import numpy as np
import pytest

import stajax
from helpers import tiny
from stajax.maps import confidence
from stajax.media.file import MediaError
from stajax.predict.__main__ import main
from stajax.predict.api import SaliencyModel
from tests.media.test_video import clicks, write_video
from tests.predict.test_outputs import Brightness, predict_video, spot

small_programs = tiny.small_programs
random_networks, model_folder = tiny.random_networks, tiny.model_folder


@pytest.mark.parametrize("every_frame", [False, True])
def test_a_prediction_writes_the_files_of_the_command(tmp_path, every_frame):
  path = write_video(tmp_path / "a.mp4", spot(14), sound=clicks(1.4, [0.3, 0.9]))
  model = SaliencyModel(Brightness("synthetic"), "m")
  assert (model.rate, model.trained_on) == (8, "synthetic")
  prediction = model.predict(path, every_frame)
  num_maps = 14 if every_frame else 12
  assert prediction.maps.shape == (num_maps, 24, 24) and prediction.maps.dtype == np.float32
  assert (prediction.maps.max((1, 2)) == 1).all()
  np.testing.assert_allclose(prediction.times, np.arange(num_maps) / prediction.rate, atol=1e-3)
  assert prediction.times.dtype == np.float64 and prediction.rate == pytest.approx(10 if every_frame else 8)
  assert prediction.size == (64, 48) and prediction.has_sound
  assert prediction.trained_on == "synthetic" and prediction.notes == ()

  (tmp_path / "command").mkdir()
  predict_video(Brightness("synthetic"), path, tmp_path / "command", every_frame, model="m")
  (tmp_path / "api").mkdir()
  prediction.save_npz(tmp_path / "api" / "a.maps-000.npz")
  prediction.save_json(tmp_path / "api" / "a.json")
  prediction.save_overlay(str(tmp_path / "api" / "a.overlay.mp4"))
  with pytest.raises(ValueError, match=r"a\.avi: expected a name that ends in \.mp4"):
    prediction.save_overlay(tmp_path / "a.avi")
  written = sorted(path.name for path in (tmp_path / "command").iterdir())
  assert written == sorted(path.name for path in (tmp_path / "api").iterdir())
  for name in written:
    assert (tmp_path / "api" / name).read_bytes() == (tmp_path / "command" / name).read_bytes(), name
  for save in (prediction.save_npz, prediction.save_json, prediction.save_overlay):
    with pytest.raises(FileNotFoundError, match=r"no such folder: '.*/missing'$"):
      save(tmp_path / "missing" / "a.mp4")


def test_a_stream_gives_the_maps_one_by_one(tmp_path):
  path = write_video(tmp_path / "a.mp4", spot(9))
  model = SaliencyModel(Brightness())
  stream, prediction = model.stream(path), model.predict(path)
  assert stream.expected_length == 7 and not stream.provenance.has_sound and not prediction.has_sound
  times, maps = zip(*stream, strict=True)
  np.testing.assert_array_equal(times, prediction.times)
  np.testing.assert_array_equal(maps, prediction.maps)
  (tmp_path / "b.mp4").write_text("not media")
  with pytest.raises(MediaError, match=r"b\.mp4"):
    model.predict(tmp_path / "b.mp4")


def test_a_prediction_has_numbers_for_encoders_editors_and_notebooks(tmp_path):
  path = write_video(tmp_path / "<a>.mp4", spot(14), rate=8)
  prediction = SaliencyModel(Brightness(), "m").predict(path, progress=True)
  middle = 4 * np.arange(10) + 3.5  # of the square
  assert np.abs(prediction.peak[:10, 0] - middle).max() <= 4 and np.abs(prediction.peak[:10, 1] - 13.5).max() <= 3
  assert prediction.centroid.shape == (14, 2) and prediction.peak.dtype == np.int64
  x, y, width, height = prediction.boxes(2)[:10, 0].T
  assert ((x <= middle) & (middle <= x + width) & (y <= 13) & (y + height >= 14)).all() and (width < 24).all()
  assert prediction.boxes(2).shape == (14, 2, 4)
  weights = prediction.block_weights(16)
  assert weights.shape == (14, 3, 4) and (weights[0].argmax(), weights[9].argmax()) == (0, 2)
  times, windows = prediction.crop("9:16")
  assert len(times) == 14 and (windows[:, 2:] == (28, 48)).all() and (np.diff(windows[:, 0]) >= 0).all()
  with pytest.raises(ValueError, match="crop tall: expected width:height"):
    prediction.crop("tall")
  with pytest.raises(ValueError, match="1000000000 boxes: expected at most 1000"):
    prediction.boxes(10**9)
  assert repr(prediction) == "<Prediction of <a>.mp4: 14 maps of 24×24, 0.00 to 1.62 s>"
  page = prediction._repr_html_()
  assert (
    page.count("data:image/png;base64,") == 8
    and "&lt;a&gt;.mp4: 64×48" in page
    and "by the model “m”" in page
    and 'src="http' not in page
  )


def test_maps_are_computed_and_smoothed_as_asked(tmp_path):
  path = write_video(tmp_path / "a.mp4", spot(26), rate=25)
  model = SaliencyModel(Brightness())
  often = model.predict(path, fps=50)
  assert model.predictor.reach == 6  # neighbours are as far apart as on the grid of 8 frames a second
  third = model.predict(path, every=3)
  np.testing.assert_allclose(often.times, np.arange(52) / 50)
  assert often.rate == 50 and model.predictor.reach == 1
  np.testing.assert_array_equal(third.maps, model.predict(path, every_frame=True).maps[::3])
  smooth = model.predict(path, every=3, smooth=0.12)  # a Gaussian of one map
  weights = np.exp(-0.5 * (np.arange(9)[:, None] - np.arange(9)) ** 2)
  weights[np.abs(np.subtract.outer(np.arange(9), np.arange(9))) > 3] = 0
  mean = np.tensordot(weights / weights.sum(1, keepdims=True), third.maps, 1)
  np.testing.assert_allclose(smooth.maps, mean / mean.max((1, 2), keepdims=True), atol=1e-5)


@pytest.mark.usefixtures("small_programs")
def test_a_model_folder_is_loaded(model_folder, tmp_path):
  """The work folder of the training is as good, and the options do what those of the command do."""
  path = write_video(tmp_path / "a.mp4", spot(9))
  model = stajax.load(model_folder, student="sta", centre=True)
  assert isinstance(model, stajax.SaliencyModel) and model.notes and model.trained_on == "synthetic"
  prediction = model.predict(path)
  assert isinstance(prediction, stajax.Prediction) and len(prediction.maps) == len(prediction.times)
  found = stajax.load(str(model_folder / "model"), "sta", True).predict(path)
  np.testing.assert_array_equal(found.maps, prediction.maps)
  arguments = [
    str(path),
    "--model",
    str(model_folder),
    "--out",
    str(tmp_path),
    "--fast",
    "--centre",
    "--no-overlay",
  ]
  assert main(arguments) == 0
  stored = np.load(tmp_path / "a.maps-000.npz")
  np.testing.assert_array_equal(stored["maps"], np.round(prediction.maps * 255).astype(np.uint8))


@pytest.mark.usefixtures("small_programs")
def test_views_are_what_each_student_makes_of_a_video_with_and_without_its_sound(model_folder, tmp_path):
  path = write_video(tmp_path / "a.mp4", spot(9), sound=clicks(0.9, [0.2, 0.6]))
  silent = write_video(tmp_path / "b.mp4", spot(9))
  model, sta, seen = stajax.load(model_folder), stajax.load(model_folder, student="sta"), list[float]()
  times, views = zip(*model.stream(path).views(seen.append), strict=True)
  assert model.students == ("sta", "sta_plus_short", "sta_plus_long") and seen == list(times)
  heard = {"final", *model.students}
  assert views[0].keys() == heard | {f"{name}_no_sound" for name in heard}
  expected = {
    "final": model.predict(path),
    "sta": sta.predict(path),
    "final_no_sound": model.predict(silent),
    "sta_no_sound": sta.predict(silent),
  }
  for name, prediction in expected.items():
    np.testing.assert_array_equal(times, prediction.times)
    np.testing.assert_allclose([view[name] for view in views], prediction.maps, atol=2e-6, err_msg=name)
  assert np.abs(expected["sta"].maps - expected["sta_no_sound"].maps).max() > 2e-5
  assert [view.keys() for _, view in model.stream(silent).views()] == [heard] * len(times)
  with pytest.raises(ValueError, match="views are not smoothed, expected 0"):
    next(model.stream(path, smooth=1).views())


@pytest.mark.usefixtures("small_programs")
def test_maps_say_what_they_gain_over_the_centre(model_folder, tmp_path):
  """As the model was measured; with another centre factor, or one student alone, nobody knows."""
  path = write_video(tmp_path / "a.mp4", spot(5))
  model = stajax.load(model_folder)
  prediction = model.predict(path, every=1)
  assert model.predictor.confidence is not None
  np.testing.assert_allclose(prediction.confidence, confidence.departure(prediction.maps) - 0.5, atol=1e-9)
  prediction.save_json(tmp_path / "a.json")
  written = json.loads((tmp_path / "a.json").read_text())
  found = [frame["confidence"] for frame in written["frames"]]
  np.testing.assert_allclose(found, prediction.confidence, atol=1e-4)
  assert written["confidence"] == pytest.approx(np.mean(found), abs=1e-4)
  for options in ({"student": "sta"}, {"centre": True}):
    assert stajax.load(model_folder, **options).predictor.confidence is None


@pytest.mark.parametrize("folder", ["nothing", "empty"])
def test_a_folder_without_a_model_is_one_line(tmp_path, folder):
  (tmp_path / "empty").mkdir()
  with pytest.raises(ValueError, match=f"^.*{folder}: not a model [^\n]*$"):
    stajax.load(tmp_path / folder)


@pytest.mark.parametrize(
  ("options", "message"),
  [({"student": "sta_plus"}, r"student 'sta_plus': expected one of sta, .*sta_plus_long"), ({"batch": 0}, "batch 0")],
)
def test_wrong_options_of_a_model_are_told(tmp_path, options, message):
  with pytest.raises(ValueError, match=message):
    stajax.load(tmp_path, **options)


def test_a_video_that_lasts_longer_than_allowed_is_refused(tmp_path):
  path = write_video(tmp_path / "a.mp4", spot(14))
  model = SaliencyModel(Brightness("synthetic"), "m")
  with pytest.raises(MediaError, match=r"a\.mp4: lasts 1 seconds, expected at most 1\.3 \(--max-seconds allows more\)"):
    model.stream(path, max_seconds=1.3)
  assert len(list(model.stream(path, max_seconds=1.5))) == 12


def test_arguments_of_another_type_are_refused_by_name():
  model = SaliencyModel(Brightness())
  frames, sound = np.zeros((2, 24, 24, 3), np.uint8), np.zeros(8000, np.float32)
  prediction = model.predict_arrays(frames, 8)
  calls = {
    "path": lambda: stajax.load(5),
    "student": lambda: stajax.load(student=1),
    "batch": lambda: stajax.load(batch="8"),
    "video": lambda: model.predict(None),
    "every": lambda: model.stream("a.mp4", every=2.5),
    "fps": lambda: model.stream("a.mp4", fps="8"),
    "smooth": lambda: model.stream("a.mp4", smooth="x"),
    "sound_stream": lambda: model.stream("a.mp4", sound_stream="1"),
    "max_seconds": lambda: model.stream("a.mp4", max_seconds="1"),
    "rate": lambda: model.predict_arrays(frames, "8"),
    "sound_rate": lambda: model.predict_arrays(frames, 8, sound, "8000"),
    "boxes": lambda: prediction.boxes(2.5),
    "side": lambda: prediction.block_weights("16"),
    "aspect": lambda: prediction.crop((9, 16)),
  }
  for name, call in calls.items():
    with pytest.raises(TypeError, match=rf"^{name}: found \w+, expected a [\w ]+$"):
      call()


def test_a_student_that_a_model_does_not_have_is_named():
  with pytest.raises(ValueError, match=r"has no student sta_plus_long, only sta$"):
    stajax.load(student="sta_plus_long")
