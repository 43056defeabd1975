"""Number formats of prediction: calibration is found, kept and used, and what cannot be is refused on one line."""

import dataclasses

import jax
import numpy as np
import pytest

import stajax
from helpers import tiny
from helpers.tiny import SIZE, STORED, make_samples
from stajax import model
from stajax.export.__main__ import main as export
from stajax.export.program import make_program
from stajax.inference.precision import at_precision, calibrate
from stajax.inference.predictor import Predictor, load_predictor
from stajax.model import ModelError
from stajax.nets.images import to_size
from stajax.predict.__main__ import main as predict

small_programs = tiny.small_programs
random_networks, model_folder = tiny.random_networks, tiny.model_folder


def frames(count=8, seed=9):
  return np.stack([frame for frame, _ in make_samples(count, seed)])


@pytest.fixture(scope="module")
def calibrated(model_folder, tmp_path_factory):
  """The folder of the model with its calibration on some frames."""
  folder = tmp_path_factory.mktemp("calibrated") / "model"
  model.save_calibrated(model_folder, folder, calibrate(model.load(model_folder), frames()))
  return folder


def test_calibration_is_the_largest_input_of_every_convolution(calibrated, model_folder):
  found, before = model.load(calibrated), model.load(model_folder)
  assert not before.calibration and set(found.variables) == {"switch", "sta", "sta_plus_short", "sta_plus_long"}
  layers = {f"visual/conv{stage}_1/conv" for stage in range(1, 6)} | {"neck/conv1/conv"}
  assert set(found.calibration) == {f"{name}/{layer}" for name in found.variables for layer in layers}
  images = (np.asarray(to_size(frames(), SIZE)) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
  assert found.calibration["sta/visual/conv1_1/conv"] == pytest.approx(np.abs(images).max(), rel=1e-4)
  jax.tree.map(np.testing.assert_array_equal, found.variables, before.variables)
  assert dataclasses.replace(found, calibration={}, variables={}) == dataclasses.replace(before, variables={})


def test_networks_that_share_an_encoder_share_its_numbers(model_folder):
  """Else each would encode every frame for itself."""
  found = model.load(model_folder)
  shared = {part: found.variables["sta_plus_short"]["params"][part] for part in ("visual", "neck")}
  statistics = found.variables["sta_plus_short"]["batch_stats"]
  own = found.variables["sta_plus_long"]
  own = {**own, "params": own["params"] | shared, "batch_stats": statistics}
  found = dataclasses.replace(found, variables={**found.variables, "sta_plus_long": own})
  found = dataclasses.replace(found, calibration=calibrate(found, frames()))
  int8 = at_precision(found, "int8", "it")
  both = [int8.variables[name]["params"]["visual"] for name in ("sta_plus_short", "sta_plus_long")]
  jax.tree.map(np.testing.assert_array_equal, *both)
  kernels = [params["conv1_1"]["conv"]["kernel"] for params in both]
  assert kernels[0].dtype == np.int8


def maps(folder, precision):
  return np.stack(list(load_predictor(folder, 16, "sta", precision=precision).maps(make_samples(5))))


def test_maps_in_int8_are_nearly_those_in_float32(calibrated):
  exact, found = (maps(calibrated, precision) for precision in (None, "int8"))
  np.testing.assert_array_equal(maps(calibrated, "float32"), exact)  # as the model is configured
  assert np.abs(found - exact).max() > 0 and np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.99


def test_bfloat16_takes_the_place_of_what_is_configured(model_folder):
  found = model.load(model_folder)
  half = at_precision(found, "bfloat16", "it")
  assert (found.config.network.dtype, half.config.network.dtype) == ("float32", "bfloat16")
  assert half.variables is found.variables and at_precision(found, None, "it") is found


def test_outputs_say_what_they_were_computed_in(calibrated):
  usual, int8, half = (
    load_predictor(calibrated, precision=precision).made_with for precision in (None, "int8", "bfloat16")
  )
  assert "precision" not in usual
  assert half == usual | {"precision": "bfloat16"}
  assert int8 == usual | {"precision": "int8", "calibration": int8["calibration"]}


def test_the_exported_program_computes_in_int8_too(calibrated):
  found = at_precision(model.load(calibrated), "int8", "it")
  program = make_program(found, ("sta",))
  samples = make_samples(3, heard=1)
  expected = np.stack(list(Predictor(found, 16, ("sta",)).maps(samples)))[1]
  inputs = np.stack([frame for frame, _ in samples])[None], samples[1][1][None], np.ones(1, np.float32)
  np.testing.assert_allclose(jax.jit(program.maps)(*inputs)[0], expected, atol=1e-4)
  text = tiny.plain_jit(program.maps).trace(*inputs).lower(lowering_platforms=("tpu",)).as_text()
  assert f"tensor<3x{SIZE}x{SIZE}x3xi8>" in text and inputs[0].shape == (1, 3, STORED, STORED, 3)


def test_a_model_without_calibration_is_refused(model_folder, tmp_path, capsys):
  line = "has no calibration, which int8 needs: `python -m stajax.predict.calibrate MODEL --out DIR` makes one"
  with pytest.raises(ModelError, match=line.split(":")[0]):
    stajax.load(model_folder, precision="int8")
  (tmp_path / "video.mp4").write_bytes(b"")
  common = ["--model", str(model_folder), "--precision", "int8", "--out"]
  assert predict([str(tmp_path / "video.mp4"), *common, str(tmp_path / "out")]) == 2
  assert export([*common, str(tmp_path / "exported")]) == 2
  errors = capsys.readouterr().err.splitlines()
  assert [error.split(": ", 1)[1] for error in errors] == [f"{model_folder}: {line}"] * 2


def test_what_is_not_a_number_format_is_refused():
  with pytest.raises(ValueError, match="precision 'int4': expected one of"):
    stajax.load(precision="int4")  # type: ignore[arg-type]


def test_a_calibration_of_another_network_is_refused(calibrated):
  found = model.load(calibrated)
  other = dataclasses.replace(found, calibration={**found.calibration, "sta/visual/conv9_1/conv": 1.0})
  with pytest.raises(ModelError, match=r"it: its calibration is of another network than sta \('visual/conv9_1/conv"):
    at_precision(other, "int8", "it")


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_a_calibration_that_is_not_finite_is_refused(model_folder, value, tmp_path):
  model.save_calibrated(model_folder, tmp_path / "model", {"sta/visual/conv1_1/conv": value})
  with pytest.raises(ModelError, match="calibration has a value that is negative or not finite"):
    model.load(tmp_path / "model")
