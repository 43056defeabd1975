"""Where people look in videos: saliency maps, an overlay video and per-frame numbers.

  python -m stajax.predict --model DIR VIDEO… --out DIR
  python -m stajax.predict --model DIR --data stavis:ROOT --out DIR

writes for each video `<name>.maps-000.npz` (and on, at most 1,000 maps each, as soon as each is full),
`<name>.overlay.mp4` and, last of all, `<name>.json`: where it is, the outputs are complete. Of an eye-tracking set it
writes a grey image for every frame, see `stajax.predict.per_dataset`.
"""

import dataclasses
import sys
import time as clock
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import tyro
from tqdm import tqdm

from stajax import runtime
from stajax.eyetracking import StavisTree, parse_data, read_tree
from stajax.media.file import MediaError
from stajax.media.spectrogram import SoundWindows, file_windows
from stajax.media.video import MediaInfo, frame_times, grid_frames, native_frames, probe
from stajax.predict.outputs import FrameLog, MapParts
from stajax.report.overlay import OverlayWriter, caption, frame_statistics, heat_overlay

# What lies beside videos in a folder without being one; a file named on the command line is always tried.
SKIPPED_SUFFIXES = {
  *(".txt", ".md", ".log", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg"),
  *(".html", ".pdf", ".py", ".sh", ".npy", ".npz", ".mat", ".h5", ".hdf5", ".pkl", ".zip", ".tar", ".gz"),
  *(".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".svg", ".webp", ".srt", ".vtt", ".ass", ".m3u", ".m3u8"),
  *(".wav", ".mp3", ".m4a", ".aac", ".flac", ".ogg", ".opus"),
}


class Predictor(Protocol):
  """Trained students on whole videos, as `stajax.inference.predictor` loads it.

  Attributes:
    rate: frames per second of the grid that it was trained on.
    side: it takes square frames of this size, pixels.
    trained_on: what it was trained on, "synthetic" for the embedded clips.
    hears: takes sound.
    seed: of what it draws from all over a video.
  """

  rate: float
  side: int
  trained_on: str
  hears: bool
  seed: int

  def maps(
    self,
    samples: Iterator[tuple[np.ndarray, np.ndarray | None]],
    reach: int,
    fragments: Callable[[], object],
  ) -> Iterator[np.ndarray]:
    """Maps (h, w) float32 in [0, 1], one a sample, in order, lagging behind by a bounded number of samples.

    Args:
      samples: frame (side, side, 3) uint8 and its normalised second of sound (257, 98) float32 or None, in order.
      reach: neighbours in time are this many samples apart.
      fragments: finds `stajax.inference.reservoir.Fragments` from all over the video, if they are needed.
    """


@dataclasses.dataclass(frozen=True)
class Summary:
  """What was written for one video.

  Attributes:
    frames: native frames, each an entry of the JSON file.
    maps: computed by the model.
    notes: what had to be left out, a line each.
  """

  frames: int
  maps: int
  notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Arguments:
  """Where people look in videos: saliency maps (npz), an overlay video with the sound, and per-frame numbers (JSON)."""

  videos: tyro.conf.Positional[tuple[Path, ...]]
  """Video files, or folders that are searched for them."""
  model: Path
  """A trained model's folder, or the work folder of its training."""
  out: Path
  """Folder for the outputs."""
  data: str | None = None
  """stavis:ROOT, in place of videos: a grey image for every frame of an eye-tracking set, as `evaluate --maps` reads
  them. Videos that are done already are not made again."""
  databases: tuple[str, ...] = ()
  """Which databases of that set; all if none is named."""
  student: Literal["sta", "sta_plus_short", "sta_plus_long"] | None = None
  """Use one student alone, instead of fusing all three."""
  fast: bool = False
  """Use the student STA alone: the same as --student sta."""
  every_frame: bool = False
  """Compute a map for each native frame instead of interpolating between those on the model's grid."""
  batch: int = 8
  """Frames that are computed together."""
  overlay: bool = True
  """Write the overlay video."""
  centre: bool | None = None
  """Multiply the maps by a Gaussian at the centre, 0.2 of the frame wide; by default as the model was configured."""


def predict_video(
  predictor: Predictor,
  path: Path,
  out: Path,
  name: str | None = None,
  every_frame: bool = False,
  overlay: bool = True,
  model: str = "",
) -> Summary:
  """Writes the maps, the overlay and the JSON file of one video, in memory that does not grow with its length.

  Args:
    path: the video.
    out: folder for the outputs, which exists.
    name: the outputs' names begin with it; None: the video's without its ending.
    every_frame: compute each native frame instead of the model's grid.
    overlay: write the overlay video.
    model: named in the outputs.

  Raises:
    MediaError: the video cannot be used.
    ValueError: a map is missing or not finite.
    OSError: an output cannot be written.
  """
  name = path.stem if name is None else name
  info, notes = probe(path), []
  sound = file_windows(path, notes, info.duration) if predictor.hears else None
  rate = info.rate if every_frame else predictor.rate
  provenance = {"video": path.name, "model": model, "trained_on": predictor.trained_on}
  parts = MapParts(out, name, {**provenance, "rate": rate, "size": [info.width, info.height]})
  maps = _timed_maps(predictor, path, info, sound, every_frame, notes)
  timeline = _Timeline(parts.record(tqdm(maps, path.name, _expected(info, rate), False, unit="map", disable=None)))
  label = "synthetic" if predictor.trained_on == "synthetic" else ""
  num_frames, size = 0, (info.width, info.height)
  writer = OverlayWriter(out / f"{name}.overlay.mp4", info, notes) if overlay else nullcontext()
  with FrameLog(out / f"{name}.json") as log:
    log.begin({**provenance, "rate": rate, "size": [info.width, info.height], "every_frame": every_frame})
    with writer:
      native = native_frames(path) if overlay else ((time, None) for time in frame_times(path))
      for time, frame in native:
        saliency = timeline.at(time)
        log.frame({"frame": num_frames, "time": round(time, 6), **frame_statistics(saliency, size)})
        if overlay:
          drawn = heat_overlay(frame, saliency)
          writer.write(time, caption(drawn, label) if label else drawn)
        num_frames += 1
      timeline.finish()
      parts.finish()
    log.end({"maps": parts.num_maps, "notes": notes})
  return Summary(num_frames, parts.num_maps, tuple(notes))


def find_videos(inputs: Iterable[Path], out: Path) -> list[tuple[Path, str]]:
  """Video files and the names of their outputs.

  Folders are searched in sorted order, without hidden files, overlays and whatever is surely no video. Of inputs that
  would have the same outputs only the first is named without its ending.

  Raises:
    FileNotFoundError: an input does not exist, or is a folder without videos.
    FileExistsError: an overlay would replace an input.
  """
  files: dict[Path, Path] = {}
  for given in inputs:
    if not given.exists():
      raise FileNotFoundError(f"{given}: no such file or folder")
    found = [given] if not given.is_dir() else [path for path in sorted(given.rglob("*")) if _may_be_video(path, given)]
    if not found:
      raise FileNotFoundError(f"{given}: holds no videos")
    files |= {path.resolve(): path for path in found if path.resolve() not in files}
  named: dict[str, Path] = {}
  for path in files.values():
    names = [path.stem, path.name, *(f"{path.name}-{number}" for number in range(2, len(files) + 2))]
    name = next(name for name in names if name not in named)
    overlay = out / f"{name}.overlay.mp4"
    if overlay.resolve() in files:
      raise FileExistsError(f"{overlay}: is an input that the overlay of {path} would replace")
    named[name] = path
  return [(path, name) for name, path in named.items()]


def main(argv: list[str] | None = None) -> int:
  """Runs the command; 0: all videos are done, 1: some failed (a line each on stderr), 2: wrong arguments."""
  arguments = tyro.cli(Arguments, prog="python -m stajax.predict", args=argv)
  try:
    _check(arguments)
    tree = videos = None
    if arguments.data is None:
      videos = find_videos(arguments.videos, arguments.out)
    else:
      tree = read_tree(parse_data(arguments.data), arguments.databases or None, need_annotations=False)
    arguments.out.mkdir(parents=True, exist_ok=True)
    runtime.configure()
    from stajax.inference.predictor import (
      load_predictor,  # JAX takes seconds to load: not before the arguments are right
    )

    only = "sta" if arguments.fast else arguments.student
    predictor = load_predictor(arguments.model, arguments.batch, only, arguments.centre)
    if tree is not None:
      return _predict_tree(predictor, tree, arguments.out)
  except (OSError, ValueError) as error:
    print(_line(error), file=sys.stderr)
    return 2
  summaries, start = [], clock.monotonic()
  for path, name in videos:
    try:
      summary = predict_video(
        predictor, path, arguments.out, name, arguments.every_frame, arguments.overlay, str(arguments.model)
      )
    except Exception as error:  # a video must not stop those after it, be it by FFmpeg's, XLA's or the disk's error
      print(_line(error, path), file=sys.stderr)
      continue
    for note in summary.notes:
      print(f"{path}: {note}", file=sys.stderr)
    summaries.append(summary)
  num_maps, failed = sum(summary.maps for summary in summaries), len(videos) - len(summaries)
  frames = f", {sum(summary.frames for summary in summaries)} frames"
  print(_summary(f"{len(summaries)} of {len(videos)} videos{frames}", num_maps, start, failed, arguments.out))
  return 1 if failed else 0


def _check(arguments: Arguments) -> None:
  if arguments.batch < 1:
    raise ValueError(f"--batch {arguments.batch}: expected at least 1")
  if arguments.data is not None and arguments.videos:
    raise ValueError(f"--data and {arguments.videos[0]}: expected either a data set or videos")
  if arguments.data is None and not arguments.videos:
    raise ValueError("no video: expected at least one file or folder, or --data")
  if arguments.fast and arguments.student not in (None, "sta"):
    raise ValueError(f"--fast and --student {arguments.student}: expected one of them")
  if not arguments.model.is_dir():
    raise FileNotFoundError(f"{arguments.model}: no such folder, expected a trained model")


def _predict_tree(predictor: Predictor, tree: StavisTree, out: Path) -> int:
  """All videos of an eye-tracking set; returns the exit code of `main`."""
  from stajax.predict.per_dataset import predict_set  # loads JAX

  for database, video, reason in tree.skipped:
    print(f"{database}/{video}: {reason}", file=sys.stderr)
  for note in (*tree.notes, *predictor.notes):
    print(f"note: {note}")
  num_maps, made, failed, start = 0, 0, len(tree.skipped), clock.monotonic()
  for video, number, error in predict_set(predictor, tree.videos, out):
    if error is not None:
      print(_line(error, Path(video.database) / video.name), file=sys.stderr)
    num_maps, made, failed = num_maps + number, made + (error is None), failed + (error is not None)
  whole = len(tree.videos) + len(tree.skipped)
  print(_summary(f"{made} of {whole} videos, {whole - made - failed} were there", num_maps, start, failed, out))
  return 1 if failed else 0


def _summary(what: str, num_maps: int, start: float, failed: int, out: Path) -> str:
  seconds = clock.monotonic() - start
  rate = num_maps / max(seconds, 1e-9)
  return f"{what}, {num_maps} maps in {seconds:.1f} s ({rate:.1f} a second), {failed} failed, in {out}"


class _Timeline:
  """Linear interpolation in a stream of maps, of which it holds two; constant before the first and after the last."""

  def __init__(self, timed_maps: Iterator[tuple[float, np.ndarray]]):
    self._maps = timed_maps
    self._before = self._after = next(timed_maps, None)
    if self._before is None:
      raise ValueError("the model gave no map")

  def at(self, time: float) -> np.ndarray:
    """The map (h, w) at a time, in seconds; times must not decrease."""
    while self._after is not None and self._after[0] <= time:
      self._before, self._after = self._after, next(self._maps, None)
    if self._after is None or time <= self._before[0]:
      return self._before[1]
    weight = np.float32((time - self._before[0]) / (self._after[0] - self._before[0]))
    return (1 - weight) * self._before[1] + weight * self._after[1]

  def finish(self) -> None:
    """Draws the maps that are left."""
    deque(self._maps, maxlen=0)


def _timed_maps(
  predictor: Predictor, path: Path, info: MediaInfo, sound: SoundWindows | None, every_frame: bool, notes: list[str]
) -> Iterator[tuple[float, np.ndarray]]:
  """Time and map (h, w) float32 with a maximum of 1 (or all 0) of each sample."""
  times: deque[float] = deque()  # of the samples that the model has taken in and not given a map for

  def samples() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    size = (predictor.side, predictor.side)
    frames = native_frames(path, size, notes) if every_frame else grid_frames(path, predictor.rate, size[0], notes)
    for time, frame in frames:
      times.append(time)
      yield frame, None if sound is None else sound.window(time)

  reach = max(1, round(info.rate / predictor.rate)) if every_frame else 1

  def fragments() -> object:
    from stajax.inference.reservoir import of_file  # loads JAX

    rate = info.rate if every_frame else predictor.rate
    return of_file(info, sound, rate, reach, predictor.side, predictor.seed)

  for saliency in predictor.maps(samples(), reach, fragments):
    saliency = np.asarray(saliency, np.float32)
    if not np.isfinite(saliency).all():
      raise ValueError(f"the model's map at {times[0]:.3f} s is not finite")
    yield times.popleft(), saliency / max(float(saliency.max()), 1e-12)


def _may_be_video(path: Path, folder: Path) -> bool:
  hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
  skipped = path.suffix.lower() in SKIPPED_SUFFIXES or path.name.endswith(".overlay.mp4")
  return not hidden and not skipped and path.is_file()


def _expected(info: MediaInfo, rate: float) -> int | None:
  """About how many maps there will be, for the progress bar."""
  return None if info.duration is None else max(1, round(info.duration * rate))


def _line(error: Exception, path: Path | None = None) -> str:
  """One line that names the file."""
  text = " ".join(str(error).split())
  if not isinstance(error, MediaError | OSError | ValueError):
    text = f"{type(error).__name__}: {text}"
  return text if path is None or str(path) in text else f"{path}: {text}"


if __name__ == "__main__":
  sys.exit(main())
