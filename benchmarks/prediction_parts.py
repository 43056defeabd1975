"""Measures where the time of `stajax predict` goes: start, sound, decoding, network, overlay, encoding, waiting.

  python -m benchmarks.prediction_parts [--size 720 1280] [--seconds 10] [--rate 8] [--rounds 3] [--json FILE]
  python -m benchmarks.prediction_parts --video FILE [--rounds 3] [--json FILE]

Every round runs the command in a process of its own, whose functions are timed. The parts of a thread never count
twice: what a part calls belongs to it. Beside their time stands the processor time of the thread itself, without that
of the threads of libraries, which compute the network and encode. `decode` is the time in which a thread waits for
decoders, which are other processes; `network` that in which it starts the network or waits for it; `queue` that in
which it waits for another thread of the command. The first run fills the cache of compiled programs, and does not
count. `busy` is the processor time of all processes, divided by the time and the number of cores.

Frames larger than 720p are scaled up from small ones, so they are easier to decode than what cameras record.
"""

import argparse
import functools
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.real_time import make_video

_TICKS = os.sysconf("SC_CLK_TCK")


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--seconds", type=int, default=10, help="duration of the video that is made")
  parser.add_argument("--size", type=int, nargs=2, default=(720, 1280), help="its height and width")
  parser.add_argument("--video", help="a video to predict instead of one that is made")
  parser.add_argument("--rate", type=float, default=8.0, help="maps a second")
  parser.add_argument("--format", default="npz,mp4,json", help="what is written; without mp4 there is no overlay")
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--json", type=Path)
  arguments = parser.parse_args(argv)
  measure.use_one_device()
  with tempfile.TemporaryDirectory() as folder:
    video = Path(arguments.video or Path(folder) / "video.mp4")
    if arguments.video is None:
      make_video(video, arguments.seconds, tuple(arguments.size))
    options = [str(video), "--out", str(Path(folder) / "out"), "--overwrite", "--fps", f"{arguments.rate:g}"]
    options += ["--format", arguments.format]
    load = os.getloadavg()[0]
    rounds = [_run(options) for _ in range(arguments.rounds + 1)][1:]
  seconds = rounds[0]["video_seconds"]
  cores = len(os.sched_getaffinity(0))
  busy = [(x["own_processor"] + x["decoders_processor"]) / x["total"] / cores for x in rounds]
  names = list(dict.fromkeys(name for x in rounds for name in x["parts"]))
  width, height = rounds[0]["size"]
  whole = [[x["total"], x["own_processor"] + x["decoders_processor"]] for x in rounds]
  measured = {"stajax predict": whole, **{name: [x["parts"].get(name, [0.0, 0.0]) for x in rounds] for name in names}}
  measured["decoders, all of their threads"] = [[0.0, x["decoders_processor"]] for x in rounds]
  result = {
    "benchmark": "prediction_parts",
    "title": f"parts of `predict`, {seconds:.0f} s of video at {width}×{height}; a load of {load:.1f} before",
    "arguments": measure.settings_of(arguments),
    "unit": "video s/s",
    **measure.about(),
    "results": {name: _summary(both, seconds) for name, both in measured.items() if np.max(both) > 0.005},
    "ratios": {"stajax predict, busy / all cores": {"rounds": busy, "median": statistics.median(busy)}},
  }
  measure.finish(result, arguments.json)
  return 0


def _summary(values: Sequence[Sequence[float]], work: float) -> dict[str, Any]:
  seconds, processor = zip(*values, strict=True)
  median = statistics.median(seconds)
  found = {"seconds": list(seconds), "median": median, "per_second": work / median if median else 0.0}
  return {**found, "processor": statistics.median(processor)}


def _run(options: Sequence[str]) -> Mapping[str, Any]:
  """Runs the command once; returns what `_child` found."""
  code = "import sys; from benchmarks.prediction_parts import _child; _child(float(sys.argv[1]), sys.argv[2:])"
  command = [sys.executable, "-c", code, repr(time.time()), *options]
  finished = subprocess.run(command, capture_output=True, text=True, check=False)
  if finished.returncode:
    raise RuntimeError(f"the command failed: {finished.stderr[-1000:]}")
  return json.loads(finished.stdout.splitlines()[-1])


class PartClock:
  """Adds up the time that threads spend in parts of a program."""

  def __init__(self) -> None:
    self.seconds: dict[tuple[str, str], list[float]] = {}
    """For each thread and part the time by the clock and that of the thread's processor, in seconds."""
    self._inside = threading.local()

  def watch(self, owner: Any, name: str, part: str) -> None:
    """Times a function of a module or of a class from now on."""
    function: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(function)
    def timed(*arguments: Any, **options: Any) -> Any:
      if getattr(self._inside, "part", None) is not None:
        return function(*arguments, **options)
      self._inside.part, start, began = part, time.perf_counter(), time.thread_time()
      try:
        return function(*arguments, **options)
      finally:
        self._inside.part = None
        total = self.seconds.setdefault((threading.current_thread().name, part), [0.0, 0.0])
        total[0] += time.perf_counter() - start
        total[1] += time.thread_time() - began

    setattr(owner, name, timed)


def _child(began: float, options: Sequence[str]) -> None:
  """Predicts in this process, and prints what took how long; `began` is when the process was started."""
  from stajax.predict import __main__ as command

  clock, about = PartClock(), {}
  predict_videos = command._predict_videos

  def started(*arguments: Any) -> int:
    about["start"], about["start_processor"] = time.time() - began, time.process_time()
    _watch(clock)
    return predict_videos(*arguments)

  setattr(command, "_predict_videos", started)  # noqa: B010
  code = command.main(options)
  total = time.time() - began
  from stajax.media import isolated

  info = isolated.probe(options[0], [])
  own, main_thread = time.process_time(), threading.main_thread().name
  in_main = [seconds for (thread, _), (seconds, _) in clock.seconds.items() if thread == main_thread]
  parts = {"main: start": [about["start"], about["start_processor"]]}
  for (thread, part), both in clock.seconds.items():
    parts[f"{'main' if thread == main_thread else thread.partition('_')[0]}: {part}"] = both
  parts["main: other"] = [total - about["start"] - sum(in_main), 0.0]
  found = {"parts": parts, "total": total, "own_processor": own, "decoders_processor": _decoders_processor()}
  print(json.dumps({**found, "video_seconds": info.duration, "size": [info.width, info.height]}))
  sys.exit(code)


def _watch(clock: PartClock) -> None:
  """Times the functions that are the parts of `predict`."""
  from stajax.inference import predictor
  from stajax.maps.confidence import Confidence
  from stajax.media import decoder_server, isolated
  from stajax.media.sound_windows import SoundWindows
  from stajax.media.video_writer import VideoWriter
  from stajax.predict import outputs, per_video

  for owner, name, part in (
    (isolated, "probe", "probe"),
    (per_video, "_read_sound", "sound"),
    (SoundWindows, "window", "sound"),
    (decoder_server, "receive", "decode"),
    (predictor.Predictor, "start_final_maps", "network"),
    (predictor, "fetch", "network"),
    (outputs, "heat_overlay", "overlay"),
    (VideoWriter, "write", "encode"),
    (VideoWriter, "_finish", "encode"),
    (outputs, "frame_statistics", "numbers"),
    (Confidence, "of", "numbers"),
    (outputs, "write_maps", "maps"),
    (queue.Queue, "get", "queue"),
    (queue.Queue, "put", "queue"),
  ):
    clock.watch(owner, name, part)


def _decoders_processor() -> float:
  """Returns the processor time of the processes that decode, in seconds, with those that have ended."""
  from stajax.media import isolated

  if isolated._current is None:
    return 0.0
  server = isolated._current.process.pid
  children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
  return sum(sum(_times(number)) for number in (server, *children))


def _times(process: int | str) -> list[float]:
  """Returns the processor times of a process and of its children that were waited for, in seconds."""
  try:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
  except OSError:
    return []
  return [int(ticks) / _TICKS for ticks in fields[11:15]]


if __name__ == "__main__":
  raise SystemExit(main())
