"""Scores a tree with all the oddities of real ones by a slow script that shares no code with the package."""

import itertools
import json
import re

import numpy as np
import pytest
import scipy.io
from PIL import Image

from stajax.evaluate.__main__ import main

SIZES = {"a": (18, 24), "b": (20, 16), "c": (18, 24)}


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
  """`a` is listed twice and has an unwatched frame and a black density, `b` has predictions past its end, which also
  start late, and `c` a constant prediction."""
  root, rng = tmp_path_factory.mktemp("odd"), np.random.default_rng(4)
  for name, size in SIZES.items():
    folder = root / "annotations" / "ETMD_av" / name
    (folder / "maps").mkdir(parents=True)
    for i in range(1, 6):
      fixated = (rng.random(size) < 0.04).astype(np.uint8)
      density = rng.integers(0, 256, size, dtype=np.uint8)
      if name == "a" and i == 2:
        fixated[:] = 0
      if name == "a" and i == 3:
        density[:] = 0
      scipy.io.savemat(folder / f"fixMap_{i:05d}.mat", {"eyeMap": fixated})
      Image.fromarray(density).save(folder / "maps" / f"eyeMap_{i:05d}.jpg", quality=95)
    maps = root / "predictions" / "etmd" / name
    maps.mkdir(parents=True)
    for i in range(3, 9) if name == "b" else range(1, 6):
      values = rng.integers(0, 256, (11, 13), dtype=np.uint8)
      values[:] = 90 if (name, i) == ("c", 4) else values
      Image.fromarray(values).save(maps / f"pred_sal_{i:06d}.png")
  (root / "fold_lists").mkdir()
  for split, names in {1: ["a", "b"], 2: ["a", "c"]}.items():
    text = "".join(f"{name} 5 25\n" for name in names)
    (root / "fold_lists" / f"ETMD_av_list_test_{split}_fps.txt").write_text(text)
  return root


def mirrored(i, n):
  i %= 2 * n
  return i if i < n else 2 * n - 1 - i


def blurred(values):
  """`postprocessMap(P, 2)`: scaled to [0, 1], a 13×13 Gaussian, symmetric borders, pixel by pixel."""
  if values.max() == values.min():
    return np.zeros(values.shape)
  values = values / values.max()
  values = (values - values.min()) / (values.max() - values.min())
  bell = [np.exp(-(k**2) / 8) for k in range(-6, 7)]
  out = np.zeros(values.shape)
  for y, x in np.ndindex(values.shape):
    for dy, dx in itertools.product(range(-6, 7), repeat=2):
      at = mirrored(y + dy, values.shape[0]), mirrored(x + dx, values.shape[1])
      out[y, x] += bell[dy + 6] * bell[dx + 6] / sum(bell) ** 2 * values[at]
  return out


def enlarged(values, size):
  """`imresize`, which for a larger size is Keys' cubic convolution."""

  def weights(n, m):
    matrix = np.zeros((m, n))
    for i in range(m):
      centre = (i + 0.5) * n / m - 0.5
      for j in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
        x = abs(centre - j)
        matrix[i, mirrored(j, n)] += 1.5 * x**3 - 2.5 * x**2 + 1 if x <= 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return matrix

  return weights(values.shape[0], size[0]) @ values @ weights(values.shape[1], size[1]).T


def area(curve):
  return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in itertools.pairwise([(0, 0), *curve, (1, 1)]))


def judd(values, fixated):
  count, curve = int(fixated.sum()), []
  for i, threshold in enumerate(sorted(values[fixated], reverse=True), 1):
    curve.append((((values >= threshold).sum() - i) / (values.size - count), i / count))
  return area(curve)


def shuffled(values, fixated, other):
  """The mean over all ways to draw: the draws' areas are linear in the share of each pixel."""
  values = (values - values.min()) / (values.max() - values.min())
  thresholds = [0.1 * k for k in range(10, -1, -1)]
  return area([(np.mean(values[other] >= t), np.mean(values[fixated] >= t)) for t in thresholds])


def unit(values):
  return (values - values.min()) / (values.max() - values.min())


def frame_scores(values, fixated, density, union):
  constant, watched = values.max() == values.min(), fixated.any()
  dark = not density.any()
  scores = {}
  if watched and not constant:
    scores["auc_judd"] = judd(values, fixated)
    scores["s_auc"] = shuffled(values, fixated, union & ~fixated)
    scores["nss"] = ((values - values.mean()) / values.std(ddof=1))[fixated].mean()
  if not constant:
    if dark:
      scores["sim"] = 0.0
    else:
      first, second = unit(values), unit(density / 255)
      scores["sim"] = np.minimum(first / first.sum(), second / second.sum()).sum()
      scores["cc"] = np.corrcoef(values.ravel(), density.ravel())[0, 1]
  return scores


def score_by_hand(root):
  """Returns {metric: score of the set}, and how many frames have none."""
  means, missing, frames = {}, {}, 0
  for name, size in SIZES.items():
    folder = root / "annotations" / "ETMD_av" / name
    eye = {i: scipy.io.loadmat(folder / f"fixMap_{i:05d}.mat")["eyeMap"] > 0 for i in range(1, 6)}
    union, found = np.any(list(eye.values()), axis=0), {}
    for path in sorted((root / "predictions" / "etmd" / name).iterdir()):
      i = int(re.search(r"\d+", path.name)[0])
      if i > 5:
        continue
      frames += 1
      density = np.asarray(Image.open(folder / "maps" / f"eyeMap_{i:05d}.jpg")).astype(float)
      values = enlarged(blurred(np.asarray(Image.open(path)).astype(float)), size)
      scores = frame_scores(values, eye[i], density, union)
      for metric in ("auc_judd", "s_auc", "nss", "sim", "cc"):
        if metric in scores:
          found.setdefault(metric, []).append(scores[metric])
        else:
          missing[metric] = missing.get(metric, 0) + 1
    means[name] = {metric: np.mean(values) for metric, values in found.items()}
  # `a` stands in both lists. The constant map of `c` has an AUC-J all the same, by chance: see the test.
  rows = [means[name] for name in ("a", "b", "a", "c")]
  return {metric: np.mean([row[metric] for row in rows]) for metric in rows[0]}, missing, frames


def test_an_odd_tree_is_scored_as_by_hand(odd, tmp_path):
  arguments = ["--maps", odd / "predictions", "--data", f"stavis:{odd}", "--out", tmp_path, "--processes", 1]
  assert main([str(x) for x in arguments]) == 0
  found = json.loads((tmp_path / "scores.json").read_text())["ETMD_av"]["maps"]
  about = json.loads((tmp_path / "evaluation.json").read_text())["sets"]["ETMD_av"]
  expected, missing, frames = score_by_hand(odd)
  assert (about["frames"], about["frames_without_map"], about["list_rows"], about["videos"]) == (frames, 2, 4, 3)
  for metric in ("nss", "sim", "cc"):
    assert found[metric] == pytest.approx(expected[metric], abs=1e-9)
    assert about["methods"]["maps"][metric]["dropped"] == missing[metric]
  assert missing == {"auc_judd": 2, "s_auc": 2, "nss": 2, "cc": 2, "sim": 1}
  # By jitter the constant map has an AUC-J near one half, which is one of five frames of one of four rows.
  assert about["methods"]["maps"]["auc_judd"]["dropped"] == 1
  assert found["auc_judd"] == pytest.approx(expected["auc_judd"], abs=0.25 / 20 * 2)
  assert found["s_auc"] == pytest.approx(expected["s_auc"], abs=0.03)  # a hundred draws
