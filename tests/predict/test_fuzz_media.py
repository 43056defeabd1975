"""Damaged media through `stajax predict`: each gives outputs or a one-line reason, and this process stays as it is."""

import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pebble")  # the fuzz of prepare, which makes the files, needs it

from stajax.media import isolated
from stajax.predict import __main__ as command
from stajax.predict.api import SaliencyModel
from stajax.predict.job import Job
from tests.predict.test_outputs import Brightness
from tests.prepare.test_fuzz_media import mutate, originals

GROWTH = 48 * 2**20  # bytes that this process may grow in the second half of its work
pytestmark = pytest.mark.skipif(not isolated.IS_POSSIBLE, reason="this system cannot fork processes")


def resident() -> int:
  """Returns the resident memory of this process in bytes, 0 where it is not known."""
  status = Path("/proc/self/statm")
  return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0


def fuzz(folder: Path, number: int, seed: int, capsys, monkeypatch) -> Counter[str]:
  """Predicts damaged files in two halves; returns how many of each kind of damage gave outputs or a reason."""
  monkeypatch.setattr(isolated, "SILENCE", 60.0)
  rng = np.random.default_rng(seed)
  for name in ("originals", "files", "out"):
    (folder / name).mkdir()
  made = originals(folder / "originals")
  cases = [mutate(made[i % len(made)], made, folder / "files" / f"{i:05d}", rng) for i in range(number)]
  job = Job(folder / "out", str(folder))
  counts, sizes = Counter(), []
  for part in np.array_split(np.arange(number), 2):
    videos = [(cases[i][0], f"{i:05d}") for i in part.tolist()]
    command._predict_videos(job, videos, set(), SaliencyModel(Brightness(), "m"))
    sizes.append(resident())
  failures = dict(re.findall(r"(?m)^stajax predict: \S*/(\d{5})\S*?: (.*)$", capsys.readouterr().err))
  for i, (_, kind) in enumerate(cases):
    is_done = (folder / "out" / f"{i:05d}.json").exists()
    assert is_done != (f"{i:05d}" in failures), "each file is either done or named with a reason"
    counts[f"{kind}: {'done' if is_done else 'refused'}"] += 1
    counts["done" if is_done else "refused"] += 1
    if not is_done and "decoder" in failures[f"{i:05d}"]:
      counts[failures[f"{i:05d}"][:70]] += 1
  assert not list((folder / "out").glob(".*")), "nothing unfinished remains"
  counts["MiB grown"] = (sizes[1] - sizes[0]) // 2**20
  assert sizes[1] - sizes[0] < GROWTH
  return counts


def test_mutated_files_end_in_outputs_or_a_reason(tmp_path, capsys, monkeypatch):
  counts = fuzz(tmp_path, 20, 1, capsys, monkeypatch)
  assert counts["done"] and counts["refused"] and counts["done"] + counts["refused"] == 20


@pytest.mark.slow
def test_many_mutated_files_end_in_outputs_or_a_reason(tmp_path, capsys, monkeypatch):
  counts = fuzz(tmp_path, 600, 2, capsys, monkeypatch)
  with capsys.disabled():
    print("", *(f"{number:5} {what}" for what, number in sorted(counts.items())), sep="\n")
  assert counts["done"] + counts["refused"] == 600
