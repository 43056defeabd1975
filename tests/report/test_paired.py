"""Tests that methods are compared clip by clip over several reports."""

import csv
import json

import numpy as np
import pytest

from stajax.report import paired
from stajax.scoring.protocol import METRICS


def write_report(folder, scores, groups):
  """Writes a report; scores: {method: {clip: NSS or None}}, the other metrics are 0."""
  folder.mkdir()
  with (folder / "per_video.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, ["database", "video", "split", "list_rows", "frames", "method", *METRICS])
    writer.writeheader()
    for method, values in scores.items():
      for clip, value in values.items():
        row = {"database": "d", "video": clip, "split": "all", "list_rows": 1, "frames": 1, "method": method}
        writer.writerow({**row, **dict.fromkeys(METRICS, 0), "nss": "" if value is None else value})
  (folder / "evaluation.json").write_text(json.dumps({"groups": groups}))
  return folder


@pytest.fixture
def folders(tmp_path):
  first = {"a": {"x": 3.0, "y": 1.0, "z": 2.0}, "b": {"x": 1.0, "y": 2.0, "z": None}}
  second = {"a": {"x": 5.0, "y": 1.0, "z": 1.0}, "b": {"x": 1.0, "y": 1.0, "z": 0.0}}
  groups = {"d/odd": ["y", "z"]}
  return [write_report(tmp_path / name, scores, groups) for name, scores in (("1", first), ("2", second))]


def test_differences_are_of_the_same_clip(folders):
  found = paired.compare([paired.read_report(folder) for folder in folders], "a:b", "nss")
  expected = np.array([2.0, -1.0, 4.0, 0.0, 1.0])  # clips without one of the scores are left out
  assert (found.mean, found.num_clips, found.num_better) == (pytest.approx(expected.mean()), 5, 3)
  assert found.error == pytest.approx(expected.std(ddof=1) / np.sqrt(5))
  assert found.run_means == pytest.approx((0.5, 5 / 3))


def test_differences_within_a_set(folders):
  found = paired.compare([paired.read_report(folder) for folder in folders], "a:b@d/odd", "nss")
  assert found.run_means == pytest.approx((-1.0, 0.5)) and found.num_clips == 3


def test_command(folders, tmp_path, capsys):
  work = tmp_path / "work"
  work.mkdir()
  folders[0].rename(work / "report")
  assert paired.main([str(work), str(folders[1]), "--pairs", "a:b", "a:b@d/odd", "--metrics", "nss"]) == 0
  table = capsys.readouterr().out
  assert "+1.200" in table and "3 of 5 clips" in table and "(d/odd)" in table
  for arguments, words in (([str(tmp_path)], "per_video.csv"), ([str(work), "--pairs", "a:c"], "'c'")):
    assert paired.main(arguments) == 2
    assert words in capsys.readouterr().err
