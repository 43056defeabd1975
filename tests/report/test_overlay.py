"""Tests that overlays colour only what is salient."""

import numpy as np
import pytest
from PIL import Image

from stajax.report.overlay import FLOOR, Look, caption, heat_overlay, palette


def test_overlay_colours_only_what_is_salient():
  frame = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
  np.testing.assert_array_equal(heat_overlay(frame, np.full((5, 7), FLOOR)), frame)
  saliency = np.zeros((6, 8))
  saliency[0, 0] = 1
  drawn = heat_overlay(frame, saliency)
  assert drawn.shape == frame.shape and drawn.dtype == np.uint8
  np.testing.assert_array_equal(drawn[30:, 40:], frame[30:, 40:])
  assert np.abs(drawn[:3, :3].astype(int) - frame[:3, :3]).mean() > 40
  labelled = caption(frame, "synthetic")
  np.testing.assert_array_equal(labelled[:30], frame[:30])
  assert (labelled != frame).any() and caption(frame[:4, :4], "synthetic").shape == (4, 4, 3)


@pytest.mark.parametrize("size", [(90, 160), (40, 30), (360, 640)])
def test_what_is_drawn_is_the_whole_map_in_the_frames_size(size):
  """Only a part of the frame is drawn; here the map is resized as a whole, and mixed with the frame pixel by pixel.

  One of its 256 levels may be rounded to the next one.
  """
  colours, opacities = palette("cool", Look.opacity)
  colours = np.frombuffer(colours, np.uint8).reshape(256, 3)
  y, x = np.mgrid[:64, :64] / 63
  for saliency in (np.exp(-((x - 0.7) ** 2 + (y - 0.1) ** 2) / 0.01), np.maximum(x * y, 1 - x - y), x * 0 + 1):
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    level = Image.fromarray(np.round(saliency.clip(0, 1) * 255).astype(np.uint8))
    level = np.asarray(level.resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
    expected = []
    for near in (np.clip(level + step, 0, 255) for step in (-1, 0, 1)):
      share = np.array(opacities)[near][..., None] / 255
      expected.append(share * colours[near] + (1 - share) * frame)
    drawn = heat_overlay(frame, saliency).astype(float)
    assert (np.min(expected, 0) - 1 <= drawn).all() and (drawn <= np.max(expected, 0) + 1).all()
    assert np.abs(drawn - expected[1]).mean() < 0.3


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (230, 120, 20), (90, 60, 40), (60, 140, 60)])
def test_heat_is_seen_on_frames_of_any_colour_and_grows_with_the_value(colour):
  frame = np.full((1, 200, 3), colour, np.uint8)
  drawn = heat_overlay(frame, np.linspace(0, 1, 200)[None])
  change = np.abs(drawn[0].astype(int) - frame[0]).sum(axis=1)
  assert (change[:58] == 0).all() and change[199] > 150 and change[120] > 50
  faint = heat_overlay(frame, np.linspace(0, 1, 200)[None], Look(opacity=0.2))
  assert np.abs(faint[0].astype(int) - frame[0]).sum(axis=1)[199] < change[199] / 2


def test_a_scale_is_drawn_where_it_is_asked_for():
  frame = np.zeros((120, 160, 3), np.uint8)
  drawn = heat_overlay(frame, np.zeros((4, 4)), Look(scale=True))
  (rows, columns, _) = np.nonzero(drawn)
  assert columns.min() > 100 and 40 <= rows.min() <= 60 <= rows.max() <= 80
  assert drawn[rows.min(), -1].tolist() == [255, 0, 255]  # magenta is the maximum
  assert heat_overlay(frame[:9, :5], np.ones((4, 4)), Look(scale=True)).shape == (9, 5, 3)


@pytest.mark.parametrize("look, message", [({"opacity": 1.5}, "opacity 1.5"), ({"colormap": "warm"}, "colormap warm")])
def test_looks_of_other_forms_are_refused(look, message):
  with pytest.raises(ValueError, match=f"^{message}: expected"):
    Look(**look)
