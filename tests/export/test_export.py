"""`stajax export`: whoever has its files and not this package computes the maps that `predict` gives."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest

import stajax
from helpers import tiny
from helpers.tiny import CONFIG, STORED
from stajax import companions, model
from stajax.config import Maps
from stajax.export.__main__ import main
from stajax.export.files import write_export
from stajax.files.manifest import sha256_of_file
from stajax.inference.predictor import Predictor
from stajax.media.audio import audio_blocks
from stajax.media.spectrogram import log_spectrogram, normalise, statistics, window_columns
from stajax.media.video import grid_frames

small_programs = tiny.small_programs
random_networks, model_folder = tiny.random_networks, tiny.model_folder
CHILD = Path(__file__).with_name("by_sidecar.py")
COUNT, RATE = 11, 4.0


@pytest.fixture(scope="module")
def a_model(model_folder):
  """A model with all three students, which blurs its maps in the frame and in time, and knows the centre."""
  found = model.load(model_folder)
  maps = Maps(size=16, blur=0.05, time_blur=0.3, centre=True)
  return dataclasses.replace(found, config=found.config.model_copy(update={"maps": maps}))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
  """Frames of noise on the model's grid, and sound in which something happens."""
  rng = np.random.default_rng(5)
  frames = rng.integers(0, 100, (COUNT, STORED, STORED, 3)) + rng.integers(0, 150, (COUNT, 1, 1, 3))
  samples = rng.normal(0, np.repeat(rng.uniform(0.001, 0.3, 60), 800))[: round(COUNT / RATE * 16000)].clip(-1, 1)
  long = companions.long_companions(CONFIG.seed, np.asarray(0), np.arange(COUNT), np.asarray(COUNT))
  return {"frames": frames.astype(np.uint8), "samples": samples, "long": long}


def maps_without_stajax(folder, video, tmp_path):
  np.savez(tmp_path / "video.npz", **video)
  environment = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
  command = [sys.executable, CHILD, folder, tmp_path / "video.npz", tmp_path / "maps.npz"]
  subprocess.run(command, check=True, env=environment)
  return np.load(tmp_path / "maps.npz")["maps"]


def predicted(a_model, students, video):
  columns = log_spectrogram(video["samples"])
  whole = statistics([columns])
  seconds = [normalise(columns[:, window_columns(i / RATE, columns.shape[1])], *whole[:2]) for i in range(COUNT)]
  samples = zip(video["frames"], seconds if len(video["samples"]) else [None] * COUNT, strict=True)
  maps = np.stack(list(Predictor(a_model, 16, students).maps(samples)))
  return maps / maps.max(axis=(1, 2), keepdims=True)


@pytest.mark.parametrize("student, has_sound", [(None, True), ("sta", False)])
def test_files_give_the_maps_of_predict(a_model, video, student, has_sound, tmp_path, monkeypatch):
  video = video if has_sound else video | {"samples": np.zeros(0)}
  with monkeypatch.context() as patch:
    patch.setattr(jax, "jit", tiny.plain_jit)  # only its results can be exported
    about = write_export(a_model, tmp_path / "out", student, False, "tiny")
  assert json.loads((tmp_path / "out" / "export.json").read_text()) == about
  assert about["files"] == {"model.stablehlo": sha256_of_file(tmp_path / "out" / "model.stablehlo")}
  assert about["program"]["platforms"] == ["cpu", "cuda", "tpu"]
  found = maps_without_stajax(tmp_path / "out", video, tmp_path)
  expected = predicted(a_model, None if student is None else (student,), video)
  assert found.shape == expected.shape and np.std(expected, axis=0).max() > 1e-3
  np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_folder_with_files_is_left_alone(tmp_path, capsys):
  (tmp_path / "mine.txt").write_text("mine")
  assert main(["--out", str(tmp_path)]) == 2
  assert "has files in it, expected a new or an empty folder" in capsys.readouterr().err
  assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_student_that_the_model_lacks_is_named(tmp_path, capsys):
  assert main(["--out", str(tmp_path / "out"), "--student", "sta_plus_short"]) == 2
  assert "has no student sta_plus_short, expected one of sta\n" in capsys.readouterr().err
  assert not (tmp_path / "out").exists()


TENSORFLOW_ALONE = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.modules["jax"] = sys.modules["stajax"] = None  # whoever imports them fails
import numpy as np, tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
with np.load(sys.argv[2]) as inputs:
  maps = [serve(**{name: tf.constant(x[at : at + 2]) for name, x in inputs.items()})["maps"] for at in (0, 2)]
np.savez(sys.argv[3], maps=np.concatenate(maps))
"""


@pytest.mark.slow
def test_the_shipped_model_on_a_real_video(shared, tmp_path):
  """Both files, each in a process of its own that must not load this package, against `predict` itself."""
  pytest.importorskip("tensorflow")
  path = sorted((shared / "data" / "clips" / "dog").glob("*.mp4"))[0]
  loaded = stajax.load()
  prediction = loaded.predict(path)
  assert main(["--out", str(tmp_path / "out"), "--saved-model"]) == 0
  times, frames = zip(*grid_frames(path, loaded.rate, loaded.predictor.side), strict=True)
  samples = np.concatenate(list(audio_blocks(path)))
  video = {"frames": np.stack(frames), "samples": samples, "long": np.zeros((len(frames), 2), int)}
  np.testing.assert_array_equal(times, prediction.times)
  found = maps_without_stajax(tmp_path / "out", video, tmp_path)
  np.testing.assert_allclose(found, prediction.maps, atol=1e-4)

  rng = np.random.default_rng(0)
  side = loaded.predictor.side
  inputs = {
    "frames": rng.integers(0, 255, (4, 3, side, side, 3)).astype(np.uint8),
    "sound": rng.normal(size=(4, 257, 98)).astype(np.float32),
    "heard": np.array([1, 0, 1, 1], np.float32),
  }
  np.savez(tmp_path / "inputs.npz", **inputs)
  command = [sys.executable, "-c", TENSORFLOW_ALONE, tmp_path / "out" / "saved_model", tmp_path / "inputs.npz"]
  subprocess.run([*command, tmp_path / "served.npz"], check=True)
  program = jax.export.deserialize(bytearray((tmp_path / "out" / "model.stablehlo").read_bytes()))
  expected = np.asarray(jax.jit(program.call)(*inputs.values()))
  np.testing.assert_allclose(np.load(tmp_path / "served.npz")["maps"], expected, atol=1e-4 * expected.max())
