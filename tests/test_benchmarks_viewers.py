"""Tests of the benchmark of encoders and crops: its curves, and that it runs on a small tree."""

import sys

import numpy as np
import pytest
from PIL import Image

from helpers.paths import ROOT
from stajax.prepare.tree_files import write_fold_lists, write_video

sys.path.insert(0, str(ROOT))  # `benchmarks` is not installed with stajax

from benchmarks import viewers


def test_curves_that_are_apart_by_a_factor_and_by_decibels():
  plain = [(1000.0 * 2**k, 30.0 + 3 * k, 0.0) for k in range(4)]  # three dB for each doubling
  bits, quality = viewers.compare(plain, [(0.8 * bits, psnr, 0.0) for bits, psnr, _ in plain], 1)
  assert bits == pytest.approx(-0.2, abs=1e-6) and quality == pytest.approx(-3 * np.log2(0.8), abs=1e-6)
  assert viewers.compare(plain, plain, 1) == pytest.approx((0, 0))


def test_it_runs_on_a_tree(tmp_path, capsys):
  rng, shape = np.random.default_rng(0), (4, 48, 64)
  density = np.zeros(shape, np.uint8)
  density[:, 10:30, 40:60] = 255
  fixations = (density > 0) & (rng.random(shape) < 0.1)
  frames = rng.integers(0, 256, (*shape, 3), np.uint8)
  write_video(tmp_path / "tree", "Tiny", "a", frames, None, zip(fixations, density, strict=True))
  write_fold_lists(tmp_path / "tree", "Tiny", [("a", 4, 8.0)])
  (tmp_path / "maps/Tiny/a").mkdir(parents=True)
  for number, values in enumerate(density, 1):
    Image.fromarray(values).save(tmp_path / f"maps/Tiny/a/img_{number:05d}.png")
  arguments = ["--data", str(tmp_path / "tree"), "--maps", str(tmp_path / "maps"), "--preset", "ultrafast"]
  assert viewers.main([*arguments, "--crf", "10", "20", "30", "--crop", "1:2"]) == 0
  lines = capsys.readouterr().out.splitlines()
  rows = [line.split("|") for line in lines if line.count("|") == 3 and "." in line]
  shares = {name.strip(): float(share) for _, name, share, _ in rows}
  assert shares == {"maps": 1, "viewers": 1, "centre": pytest.approx(0.2, abs=0.2), "uniform": shares["centre"]}
  assert lines[-6].count("viewers' regions") == 2 and lines[-1].startswith("| viewers |")
