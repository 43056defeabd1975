"""Measures what it costs that `predict` decodes in a process of its own.

  python -m benchmarks.isolation [--seconds 10] [--size 720 1280] [--rounds 5] [--json FILE]

The same process predicts the same video in turn with decoding apart and in itself; the model is loaded once. Beside the
time there is the processor time of all processes, which other users of the machine change less.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import measure
from benchmarks.measure import Contestant
from benchmarks.real_time import make_video
from stajax.media import isolated
from stajax.predict import __main__ as predict

_FPS = 25


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--seconds", type=int, default=10, help="duration of the video")
  parser.add_argument("--size", type=int, nargs=2, default=(720, 1280), help="height and width of the video")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--json", type=Path)
  arguments = parser.parse_args(argv)
  measure.use_one_device()
  with tempfile.TemporaryDirectory() as folder:
    video = Path(folder) / "video.mp4"
    make_video(video, arguments.seconds, tuple(arguments.size))
    found, compared = {}, {}
    for what, options in {"maps and numbers": ["--no-overlay"], "overlay too": []}.items():
      both = {f"stajax, {what}": True, f"decoding in this process, {what}": False}
      used: dict[str, list[float]] = {name: [] for name in both}
      contestants = {
        name: Contestant(_predict(video, options, apart, used[name]), float(arguments.seconds * _FPS))
        for name, apart in both.items()
      }
      measured = measure.measure(contestants, arguments.rounds, 1)
      compared |= measure.ratios(measured, dict.fromkeys(measured, 1.0))
      for name, seconds in used.items():
        measured[name]["processor_seconds"] = seconds[1:]  # the first run warms up
      apart, within = (used[name][1:] for name in both)
      each = [theirs / ours for ours, theirs in zip(apart, within, strict=True)]
      compared[f"processor time, {what}"] = {"rounds": each, "median": statistics.median(each)}
      found |= measured
  height, width = arguments.size
  result = {
    "benchmark": "isolation",
    "title": f"decoding apart, {arguments.seconds} s of {width}×{height}",
    "arguments": measure.settings_of(arguments),
    "unit": "frames/s",
    **measure.about(),
    "results": found,
    "ratios": compared,
  }
  measure.finish(result, arguments.json)
  return 0


def _predict(video: Path, options: Sequence[str], apart: bool, used: list[float]):
  argv = [str(video), "--out", str(video.parent / "out"), "--overwrite", *options]

  def run(times: int) -> None:
    before = _processor_seconds()
    for _ in range(times):
      with _decoding(apart), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        if predict.main(argv):
          raise RuntimeError(f"stajax predict {' '.join(argv)} failed")
    used.append((_processor_seconds() - before) / times)

  return run


@contextlib.contextmanager
def _decoding(apart: bool) -> Iterator[None]:
  before = isolated.IS_POSSIBLE
  isolated.IS_POSSIBLE = apart and before
  try:
    yield
  finally:
    isolated.IS_POSSIBLE = before


def _processor_seconds() -> float:
  """Returns the processor time of this process and of all that decode for it, also of those that still run."""
  spent = os.times()
  server = isolated._current
  children = 0.0
  if server is not None:
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    children = sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")
  return spent.user + spent.system + children


if __name__ == "__main__":
  raise SystemExit(main())
