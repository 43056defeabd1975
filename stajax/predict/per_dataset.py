"""Writes the maps of all videos of an eye-tracking set: `stajax predict --data stavis:ROOT`.

  OUT/<database>/<video>/img_00001.png    grey, each with a maximum of 255; numbered like the frames
  OUT/predict.json                        the model and the settings that made them

With `--data avimos:ROOT` it is a submission to that challenge:

  OUT/<video>.mp4                         grey, without loss, a frame for each frame

A video's folder or file appears when it is complete, and is then left as it is. `stajax evaluate --maps OUT` gives the
same scores as `stajax evaluate --model`.

Short videos are computed together. Which ones depends on the whole set alone, so maps are the same whatever is there
already, and however many devices and processes share the work.
"""

import contextlib
import itertools
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stajax import runtime
from stajax.cli import WHOLE, Part
from stajax.eyetracking import StavisVideo
from stajax.files import FileError, make_folder, partial_path, put_in_place, read_json, write_json
from stajax.inference.dataset import compute_pack_maps, make_packs
from stajax.inference.local_devices import Device, on_local_devices
from stajax.inference.predictor import Predictor, to_uint8
from stajax.media.grey_video import GreyWriter

ABOUT = "predict.json"
_COMPRESSION = 1  # of PNG; more takes longer than the maps


Done = tuple[StavisVideo, int, Exception | None]
"""A video that is done, the number of maps that were written, and the error if it failed."""


def predict_dataset(
  predictor: Predictor, videos: Sequence[StavisVideo], out: Path, part: Part = WHOLE, as_videos: bool = False
) -> Iterator[Done]:
  """Writes the maps of the videos that have none yet, on all devices of this process.

  Args:
    predictor: The students.
    videos: All videos of the set.
    out: The folder for the maps.
    part: The share of this process.
    as_videos: Whether the maps of a video become a grey video rather than a folder of images.

  Yields:
    Each video when it is done.

  Raises:
    FileExistsError: `out` holds maps that another model made.
    OSError: Nothing can be written.
  """
  by_name = {_name(video): video for video in videos}
  missing = set(missing_videos(out, videos, as_videos))
  _check_provenance(out, predictor.made_with, len(missing) < len(videos))
  packs = [pack for pack in part.take(make_packs(predictor, videos)) if missing.intersection(map(_name, pack))]
  num_frames = sum(video.num_frames for pack in packs for video in pack if _name(video) in missing)
  with ThreadPoolExecutor(os.cpu_count()) as writers, runtime.progress("predicting", num_frames, "map") as bar:
    advance = _in_turn(bar.update)

    def work(device: Device, packs: Iterator[Sequence[StavisVideo]]) -> Iterator[Done]:
      own = predictor.on(device)
      found = compute_pack_maps(own, own.start_final_maps, packs)
      for name, parts in itertools.groupby(found, key=lambda part: _name(part[0])):
        if name not in missing:
          continue  # it was only computed because others are computed together with it
        video = by_name[name]
        path = _path(out, video, as_videos)
        try:
          with _opened(path, video, as_videos, writers) as write:
            number = _write_video(video, (maps for _, maps in parts), write, advance)
          yield video, number, None
        except Exception as error:  # an error of one video must not stop the others
          yield video, 0, error

    yield from on_local_devices(packs, work)


def missing_videos(out: Path, videos: Sequence[StavisVideo], as_videos: bool = False) -> list[tuple[str, str]]:
  """Returns the (database, name) of the videos whose maps are not there.

  Raises:
    ValueError: Two videos would be written to the same file.
  """
  doubled = [name for name, count in Counter(_path(out, video, as_videos) for video in videos).items() if count > 1]
  if doubled:
    raise ValueError(f"{doubled[0]}: two databases have a video of this name, expected --databases with one of them")
  return [_name(video) for video in videos if not _path(out, video, as_videos).exists()]


def _in_turn(call: Callable[[int], Any]) -> Callable[[int], None]:
  """Returns a function that several threads may call, while `call` is for one at a time."""
  lock = threading.Lock()

  def locked(count: int) -> None:
    with lock:
      call(count)

  return locked


Write = Callable[[np.ndarray], None]
"""Writes the next maps (n, h, w) uint8 of a video."""


@contextlib.contextmanager
def _opened(path: Path, video: StavisVideo, as_videos: bool, writers: Executor) -> Generator[Write]:
  """Opens the file or the folder of a video, which gets its name in the end; after an exception nothing is left."""
  partial = partial_path(path)
  make_folder(path.parent)
  try:
    if as_videos:
      with GreyWriter(partial, video.rate()) as writer:
        yield writer.write
    else:
      shutil.rmtree(partial, ignore_errors=True)
      partial.mkdir()
      yield _image_writer(partial, writers)
    put_in_place(partial, path)
  finally:
    shutil.rmtree(partial, ignore_errors=True)
    partial.unlink(missing_ok=True)


def _image_writer(folder: Path, writers: Executor) -> Write:
  """Returns a function that writes maps as numbered images."""
  numbers = itertools.count(1)

  def save(values: np.ndarray, number: int) -> None:
    Image.fromarray(values).save(folder / f"img_{number:05d}.png", compress_level=_COMPRESSION)

  def write(maps: np.ndarray) -> None:
    list(writers.map(save, maps, [next(numbers) for _ in maps]))

  return write


def _write_video(
  video: StavisVideo, parts: Iterable[np.ndarray | Exception], write: Write, advance: Callable[[int], None]
) -> int:
  """Writes the maps of a video, which come in parts, in order; returns how many there are."""
  num_written = 0
  for maps in parts:
    if isinstance(maps, Exception):
      raise maps
    if not np.isfinite(maps).all():
      raise ValueError(f"the model's maps of frames {num_written + 1} to {num_written + len(maps)} are not finite")
    write(to_uint8(maps))
    advance(len(maps))
    num_written += len(maps)
    if num_written >= video.num_frames:
      return num_written
  raise ValueError(f"the model gave {num_written} maps, expected {video.num_frames}")


def _check_provenance(out: Path, made_with: dict[str, Any], holds_maps: bool) -> None:
  """Records in `out` how its maps are made, or checks that it agrees with what is recorded there."""
  path = out / ABOUT
  try:
    found = read_json(path) if path.exists() else None
  except FileError as error:
    raise FileExistsError(f"{error}; expected another --out") from None
  if found is None:
    if holds_maps:
      raise FileExistsError(f"{out}: holds maps but no {ABOUT}, expected an empty folder")
    write_json(path, made_with, shared=True)
    return
  if found != made_with:
    raise FileExistsError(f"{path}: the maps here are of another model or other settings; expected another --out")


def _name(video: StavisVideo) -> tuple[str, str]:
  return video.database, video.name


def _path(out: Path, video: StavisVideo, as_videos: bool) -> Path:
  return out / f"{video.name}.mp4" if as_videos else out / video.database / video.name
