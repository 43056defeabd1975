"""Scores a tree with all the oddities of real ones, by a slow script that shares no code with the package."""

import csv
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
  values = unit(values)
  thresholds = [0.1 * k for k in range(10, -1, -1)]
  return area([(np.mean(values[other] >= t), np.mean(values[fixated] >= t)) for t in thresholds])


def how_often(positives, negatives):
  """How often a positive exceeds a negative; ties count half."""
  return np.mean([[(x > y) + (x == y) / 2 for y in negatives] for x in positives])


def unit(values):
  return (values - values.min()) / (values.max() - values.min())


def as_shares(values):
  values = np.maximum(values, 0)
  return values / values.sum()


def divergence(values, density):
  first, second = as_shares(values), as_shares(density)
  return sum(g * np.log(2**-52 + g / (s + 2**-52)) for g, s in zip(second.ravel(), first.ravel()))


def gain(values, fixated):
  return np.mean(np.log2(as_shares(values)[fixated] + 2**-52)) - np.log2(1 / values.size + 2**-52)


def mit_scores(values, fixated, density, union):
  """The scores of a frame by the benchmark's code, and those of `--further`; those that are undefined are left out."""
  constant, watched, dark = values.max() == values.min(), fixated.any(), not density.any()
  scores = {}
  if watched and not constant:
    scores["auc_judd"] = judd(values, fixated)
    scores["s_auc"] = scores["s_auc_expected"] = shuffled(values, fixated, union & ~fixated)
    scores["nss"] = ((values - values.mean()) / values.std(ddof=1))[fixated].mean()
  if not constant and not dark:
    first, second = unit(values), unit(density)
    scores["sim"] = np.minimum(first / first.sum(), second / second.sum()).sum()
    scores["cc"] = np.corrcoef(values.ravel(), density.ravel())[0, 1]
  elif not constant:
    scores["sim"] = 0.0
  if values.any() and not dark:
    scores["kl"] = divergence(values, density)
  if values.any() and watched:
    scores["information_gain"] = gain(values, fixated)
  return scores


def pysaliency_scores(values, fixated, density, elsewhere):
  constant, dark, scores = values.max() == values.min(), not density.any(), {}
  if fixated.any():
    scores["auc_judd"] = how_often(values[fixated], values.ravel())
    scores["s_auc"] = how_often(values[fixated], values.ravel()[elsewhere])
    scores["nss"] = 0.0 if constant else ((values - values.mean()) / values.std())[fixated].mean()
    scores["s_auc_expected"] = scores["s_auc"]  # nothing is drawn
    scores["information_gain"] = gain(values, fixated)
  if not dark:
    scores["cc"] = 0.0 if constant else np.corrcoef(values.ravel(), density.ravel())[0, 1]
  first, second = (x - min(x.min(), 0) for x in (values, np.ones(density.shape) if dark else density))
  first, second = first / first.sum(), second / second.sum()
  scores["sim"] = np.minimum(first, second).sum()
  scores["kl"] = sum(g * np.log(2.2204e-16 + g / (s + 2.2204e-16)) for g, s in zip(second.ravel(), first.ravel()))
  return scores


def elsewhere_of(name, eyes):
  """Every fixation of the other videos, as positions in the frames of this one."""
  positions, (height, width) = [], SIZES[name]
  for other, frames in eyes.items():
    for fixated in frames.values() if other != name else ():
      for y, x in np.argwhere(fixated):
        row, column = (int((at + 0.5) * to / n) for at, to, n in zip((y, x), (height, width), SIZES[other]))
        positions.append(row * width + column)
  return positions


def score_by_hand(root, protocol):
  """Returns {video: {frame: {metric: score}}}, where undefined scores are left out."""
  folder = root / "annotations" / "ETMD_av"
  eyes = {
    name: {i: scipy.io.loadmat(folder / name / f"fixMap_{i:05d}.mat")["eyeMap"] > 0 for i in range(1, 6)}
    for name in SIZES
  }
  found = {}
  for name, size in SIZES.items():
    union, elsewhere, found[name] = np.any(list(eyes[name].values()), axis=0), elsewhere_of(name, eyes), {}
    for path in sorted((root / "predictions" / "etmd" / name).iterdir()):
      i, values = int(re.search(r"\d+", path.name)[0]), np.asarray(Image.open(path)).astype(float)
      if i > 5:
        continue
      density = np.asarray(Image.open(folder / name / "maps" / f"eyeMap_{i:05d}.jpg")).astype(float)
      flat = values.max() == values.min()
      if protocol == "stavis":
        values = enlarged(blurred(values), size)
      else:
        values = np.full(size, values[0, 0]) if flat else enlarged(values, size)
      if protocol == "pysaliency":
        found[name][i] = pysaliency_scores(values, eyes[name][i], density, elsewhere)
      else:
        found[name][i] = mit_scores(values, eyes[name][i], density, union)
  return found


def mean_of_set(found, metric, protocol):
  """`a` stands in both lists. `stavis` averages videos, the others all frames."""
  frames = {name: [row[metric] for row in rows.values() if metric in row] for name, rows in found.items()}
  rows = [frames[name] for name in ("a", "b", "a", "c")]
  return np.mean([np.mean(row) for row in rows] if protocol == "stavis" else list(itertools.chain(*rows)))


@pytest.mark.parametrize("protocol", ["stavis", "dhf1k", "pysaliency"])
def test_an_odd_tree_is_scored_as_by_hand(odd, tmp_path, protocol):
  arguments = ["--maps", odd / "predictions", "--data", f"stavis:{odd}", "--out", tmp_path, "--processes", 1]
  arguments += ["--protocol", protocol, "--further", "s_auc_expected", "kl", "information_gain"]
  assert main([str(x) for x in arguments]) == 0
  scores = json.loads((tmp_path / "scores.json").read_text())["ETMD_av"]["maps"]
  about = json.loads((tmp_path / "evaluation.json").read_text())["sets"]["ETMD_av"]
  by_hand = score_by_hand(odd, protocol)
  assert (about["frames"], about["frames_without_map"], about["list_rows"], about["videos"]) == (13, 2, 4, 3)
  random = {"auc_judd", "s_auc"} if protocol != "pysaliency" else set()
  for metric, value in scores.items():
    if metric in random or (metric == "s_auc_expected" and protocol == "dhf1k"):  # against random frames
      continue
    assert value == pytest.approx(mean_of_set(by_hand, metric, protocol), abs=1e-9), metric
    missing = sum(metric not in row for rows in by_hand.values() for row in rows.values())
    assert about["methods"]["maps"][metric]["dropped"] == missing, metric
  if protocol == "pysaliency":
    return
  # AUC-J differs by the jitter alone, which is all that the constant map of `c` has.
  rows = list(csv.DictReader((tmp_path / "per_video.csv").open()))
  for row in (row for row in rows if row["method"] == "maps" and row["video"] in "ab"):
    frames = [scores["auc_judd"] for scores in by_hand[row["video"]].values() if "auc_judd" in scores]
    assert float(row["auc_judd"]) == pytest.approx(np.mean(frames), abs=1e-5)
  assert about["methods"]["maps"]["auc_judd"]["dropped"] == 1  # the unwatched frame
  if protocol == "stavis":
    assert scores["s_auc"] == pytest.approx(scores["s_auc_expected"], abs=0.03)  # a hundred draws
