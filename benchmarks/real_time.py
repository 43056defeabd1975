"""Measures how fast the model that stajax comes with predicts, beside OpenCV's spectral residual.

  pip install opencv-contrib-python-headless
  python -m benchmarks.real_time [--seconds 10] [--size 720 1280] [--rate 8] [--rounds 3]
    [--precisions bfloat16 int8] [--json FILE]

The first table is of maps alone: frames of 256×256 pixels and their sound lie in memory, and every frame gets a map.
The second is of whole commands on a video with sound that is made for the purpose; each starts a process of its own,
whose largest memory is shown. The first run of each fills the cache of compiled programs, and does not count.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import av
import numpy as np

from benchmarks import measure
from benchmarks.measure import Contestant
from stajax.inference import Precision
from stajax.media.spectrogram import NUM_BINS, WINDOW_COLUMNS
from stajax.predict.api import SaliencyModel, load

_FPS = 25
_SOUND_RATE = 16_000  # Hz
_TO_FIRST_MAP = "import stajax, sys; next(iter(stajax.load().stream(sys.argv[1])))"


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--seconds", type=int, default=10, help="duration of the video")
  parser.add_argument("--size", type=int, nargs=2, default=(720, 1280), help="height and width of the video")
  parser.add_argument("--rate", type=float, default=8.0, help="maps a second of the commands")
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--precisions", nargs="*", choices=get_args(Precision), default=[], help="maps in these, too")
  parser.add_argument("--json", type=Path)
  arguments = parser.parse_args(argv)
  measure.use_one_device()
  model = load()
  number = arguments.seconds * _FPS
  maps = {"stajax, maps with sound": _maps(model, number)}
  maps |= {f"stajax, maps with sound, {each}": _maps(load(precision=each), number) for each in arguments.precisions}
  maps |= _spectral_residual(model.predictor.side, number)
  found = measure.measure(maps, arguments.rounds, 1)
  compared = measure.ratios(found, dict.fromkeys(found, float(number)))
  with tempfile.TemporaryDirectory() as folder:
    video = Path(folder) / "video.mp4"
    make_video(video, arguments.seconds, tuple(arguments.size))
    commands = measure.measure(_commands(video, arguments.rate, number), arguments.rounds, 1)
  height, width = arguments.size
  result = {
    "benchmark": "real_time",
    "title": f"the model in the package, {arguments.seconds} s of video with sound; commands at {width}×{height}",
    "arguments": measure.settings_of(arguments),
    "unit": "frames/s",
    **measure.about(),
    "results": found | commands,
    "ratios": compared,
  }
  measure.finish(result, arguments.json)
  return 0


def _maps(model: SaliencyModel, number: int) -> Contestant:
  """Returns the model on `number` frames with sound that lie in memory."""
  generator, side = np.random.default_rng(0), model.predictor.side
  frames = np.stack([_picture(side, side, i / _FPS) for i in range(number)])
  sounds = generator.normal(size=(number, NUM_BINS, WINDOW_COLUMNS)).astype(np.float32)
  reach = round(_FPS / model.rate)

  def run(times: int) -> None:
    for _ in range(times):
      assert sum(1 for _ in model.predictor.maps(zip(frames, sounds, strict=True), reach)) == number

  return Contestant(run, number)


def _spectral_residual(side: int, number: int) -> dict[str, Contestant]:
  """Returns OpenCV's spectral residual on the same frames, if OpenCV is there."""
  try:
    import cv2  # pyright: ignore[reportMissingImports] # not a dependency of the project
  except ImportError:
    return {}
  frames = [_picture(side, side, i / _FPS) for i in range(number)]
  residual: Any = cv2.saliency.StaticSaliencySpectralResidual.create()

  def run(times: int) -> None:
    for _ in range(times):
      assert all(residual.computeSaliency(frame)[0] for frame in frames)

  return {"OpenCV, spectral residual": Contestant(run, number)}


def _commands(video: Path, rate: float, frames: int) -> dict[str, Contestant]:
  """Returns commands on a video, each with a dictionary that receives the largest memory of its processes."""
  out = str(video.parent / "out")
  predict = ["-m", "stajax.predict", str(video), "--out", out, "--overwrite", "--fps", f"{rate:g}"]
  commands = {
    "import to first map": ["-c", _TO_FIRST_MAP, str(video)],
    "predict, maps and numbers": [*predict, "--no-overlay"],
    "predict, overlay too": predict,
  }
  return {name: _process([sys.executable, *command], frames) for name, command in commands.items()}


def _process(command: Sequence[str], work: float) -> Contestant:
  about: dict[str, Any] = {"peak_bytes": 0}

  def run(times: int) -> None:
    for _ in range(times):
      child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
      while child.poll() is None:
        about["peak_bytes"] = max(about["peak_bytes"], _memory(child.pid))
        time.sleep(0.05)
      if child.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit status {child.returncode}")

  return Contestant(run, work, about)


def _memory(process: int) -> int:
  """Returns the bytes of memory of a process and its descendants, pages that they share counted once; 0 once it ended.

  The largest memory that the system reports of a child is no help: it is at least that of the parent, which is this
  benchmark with a model and frames in memory.
  """
  folder = Path(f"/proc/{process}")
  try:
    rollup = (folder / "smaps_rollup").read_text()
    children = " ".join(path.read_text() for path in folder.glob("task/*/children")).split()
  except OSError:
    return 0
  own = next((int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:")), 0)
  return own + sum(_memory(int(child)) for child in children)


def make_video(path: Path, seconds: int, size: tuple[int, int]) -> None:
  """Writes an H.264 video of moving blobs with a tone; `size` is height and width.

  Frames larger than 720p are scaled up from 360p, because computing them would take minutes.
  """
  height, width = size
  drawn = (height, width) if height * width <= 720 * 1280 else (360, 640)
  with av.open(str(path), "w") as container:
    picture: Any = container.add_stream("libx264", rate=_FPS)
    picture.height, picture.width, picture.pix_fmt = height, width, "yuv420p"
    sound: Any = container.add_stream("aac", rate=_SOUND_RATE, layout="mono")
    for number in range(seconds * _FPS):
      frame = av.VideoFrame.from_ndarray(_picture(*drawn, number / _FPS), format="rgb24")
      container.mux(picture.encode(frame))
    container.mux(picture.encode(None))
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(seconds * _SOUND_RATE) / _SOUND_RATE)
    block = av.AudioFrame.from_ndarray(tone[None].astype(np.float32), format="fltp", layout="mono")
    block.sample_rate = _SOUND_RATE
    container.mux(sound.encode(block))
    container.mux(sound.encode(None))


def _picture(height: int, width: int, time: float) -> np.ndarray:
  """Returns a frame (height, width, 3) uint8 of coloured waves and a bright spot that moves."""
  y, x = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)
  waves = [np.sin(2 * np.pi * (3 * x * (c + 1) + 2 * y + 0.2 * time)) * np.cos(9 * y - c * time) for c in range(3)]
  spot = np.exp(-((x - 0.5 - 0.3 * np.cos(time)) ** 2 + (y - 0.5 - 0.3 * np.sin(time)) ** 2) / 0.01)
  return np.clip(90 + 50 * np.stack(waves, axis=-1) + 110 * spot[..., None], 0, 255).astype(np.uint8)


if __name__ == "__main__":
  raise SystemExit(main())
