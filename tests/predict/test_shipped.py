"""The model that the package comes with."""

import json

import jax
import numpy as np
import pytest

import stajax
from helpers.paths import ROOT
from stajax import model
from stajax.files.manifest import sha256_of_file
from stajax.inference.predictor import load_predictor


def test_it_is_small_and_what_it_says():
  assert sum(path.stat().st_size for path in model.SHIPPED.iterdir()) < 12e6
  said = json.loads((model.SHIPPED / "model.json").read_text("utf-8"))
  assert said["sha256"] == {"sta": sha256_of_file(model.SHIPPED / "sta.safetensors")}
  for name in ("config.json", "model.json", "README.md"):
    assert str(ROOT.parent) not in (model.SHIPPED / name).read_text("utf-8")


def test_it_fits_its_network():
  found = model.load(model.SHIPPED)
  assert all(np.isfinite(x).all() and x.dtype == np.float32 for x in jax.tree.leaves(found.variables))
  assert stajax.load().name == "stajax's own"


@pytest.mark.slow
def test_it_sees_where_the_frame_differs():
  """Where a frame is grey but for one textured spot off the middle, the map's peak is nearer to it than the middle."""
  rng = np.random.default_rng(0)
  predictor = load_predictor(model.SHIPPED, batch=4, centre=False)
  frame = np.full((predictor.side, predictor.side, 3), 128, np.uint8)
  frame[60:160, 340:440] = rng.integers(0, 256, (100, 100, 3))
  found = np.stack(list(predictor.maps((frame, None) for _ in range(4))))[1]
  row, column = np.array(np.unravel_index(found.argmax(), found.shape)) / found.shape
  assert np.hypot(row - 110 / 512, column - 390 / 512) < np.hypot(row - 0.5, column - 0.5)
