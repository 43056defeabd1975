"""Tests that overlays colour only what is salient."""

import numpy as np

from stajax.report.overlay import caption, heat_overlay


def test_overlay_colours_only_what_is_salient():
  frame = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
  np.testing.assert_array_equal(heat_overlay(frame, np.zeros((5, 7))), frame)
  saliency = np.zeros((6, 8))
  saliency[0, 0] = 1
  drawn = heat_overlay(frame, saliency)
  assert drawn.shape == frame.shape and drawn.dtype == np.uint8
  np.testing.assert_array_equal(drawn[30:, 40:], frame[30:, 40:])
  assert np.abs(drawn[:3, :3].astype(int) - frame[:3, :3]).mean() > 40
  labelled = caption(frame, "synthetic")
  np.testing.assert_array_equal(labelled[:30], frame[:30])
  assert (labelled != frame).any() and caption(frame[:4, :4], "synthetic").shape == (4, 4, 3)
