"""Writes the maps of all videos of an eye-tracking set: `stajax predict --data stavis:ROOT`.

  OUT/<database>/<video>/img_00001.png    grey, each with a maximum of 255; numbered like the frames
  OUT/predict.json                        the model and the settings that made them

A video's folder appears when it is complete, and is then left as it is. `stajax evaluate --maps OUT` gives the same
scores as `stajax evaluate --model`.

Short videos are computed together. Which ones depends on the whole set alone, so maps are the same whatever is there
already, and however many devices and processes share the work.
"""

import itertools
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from stajax.cli import WHOLE, Part
from stajax.eyetracking import StavisVideo
from stajax.files import partial_path, write_json
from stajax.inference.dataset import compute_pack_maps, make_packs
from stajax.inference.local_devices import Device, on_local_devices
from stajax.inference.predictor import Predictor, to_uint8

ABOUT = "predict.json"
_COMPRESSION = 1  # of PNG; more takes longer than the maps


Done = tuple[StavisVideo, int, Exception | None]
"""A video that is done, the number of maps that were written, and the error if it failed."""


def predict_dataset(
  predictor: Predictor, videos: Sequence[StavisVideo], out: Path, part: Part = WHOLE
) -> Iterator[Done]:
  """Writes the maps of the videos that have no folder yet, on all devices of this process.

  Args:
    predictor: The students.
    videos: All videos of the set.
    out: The folder for the maps.
    part: The share of this process.

  Yields:
    Each video when it is done.

  Raises:
    FileExistsError: `out` holds maps that another model made.
    OSError: Nothing can be written.
  """
  by_folder = {_folder(out, video): video for video in videos}
  missing = set(missing_videos(out, videos))
  _check_provenance(out, predictor.made_with, len(missing) < len(videos))
  packs = [pack for pack in part.take(make_packs(predictor, videos)) if missing.intersection(map(_name, pack))]
  num_frames = sum(video.num_frames for pack in packs for video in pack if _name(video) in missing)
  with ThreadPoolExecutor(os.cpu_count()) as writers, tqdm(total=num_frames, unit="map", disable=None) as bar:
    advance = _in_turn(bar.update)

    def work(device: Device, packs: Iterator[Sequence[StavisVideo]]) -> Iterator[Done]:
      own = predictor.on(device)
      found = compute_pack_maps(own, own.start_final_maps, packs)
      for folder, parts in itertools.groupby(found, key=lambda part: _folder(out, part[0])):
        video = by_folder[folder]
        if _name(video) not in missing:
          continue  # it was only computed because others are computed together with it
        try:
          yield video, _write_video(writers, out, video, (maps for _, maps in parts), advance), None
        except Exception as error:  # an error of one video must not stop the others
          shutil.rmtree(_partial(out, video), ignore_errors=True)
          yield video, 0, error

    yield from on_local_devices(packs, work)


def missing_videos(out: Path, videos: Sequence[StavisVideo]) -> list[tuple[str, str]]:
  """Returns the (database, name) of the videos whose maps are not there."""
  return [_name(video) for video in videos if not _folder(out, video).is_dir()]


def _in_turn(call: Callable[[int], Any]) -> Callable[[int], None]:
  """Returns a function that several threads may call, while `call` is for one at a time."""
  lock = threading.Lock()

  def locked(count: int) -> None:
    with lock:
      call(count)

  return locked


def _write_video(
  writers: Executor,
  out: Path,
  video: StavisVideo,
  parts: Iterable[np.ndarray | Exception],
  advance: Callable[[int], None],
) -> int:
  """Writes the maps of a video, which come in parts, in order; returns how many there are."""
  num_written = 0
  for maps in parts:
    if isinstance(maps, Exception):
      raise maps
    _write(writers, _partial(out, video), num_written, maps)
    advance(len(maps))
    num_written += len(maps)
    if num_written >= video.num_frames:
      os.replace(_partial(out, video), _folder(out, video))
      return num_written
  raise ValueError(f"the model gave {num_written} maps, expected {video.num_frames}")


def _write(writers: Executor, folder: Path, first: int, maps: np.ndarray) -> None:
  """Writes the maps (n, h, w) of a video's frames from 0-based frame `first` on."""
  if first == 0:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
  if not np.isfinite(maps).all():
    raise ValueError(f"the model's maps of frames {first + 1} to {first + len(maps)} are not finite")

  def save(at: int, values: np.ndarray) -> None:
    Image.fromarray(values).save(folder / f"img_{first + at + 1:05d}.png", compress_level=_COMPRESSION)

  list(writers.map(save, range(len(maps)), to_uint8(maps)))


def _check_provenance(out: Path, made_with: dict[str, Any], holds_maps: bool) -> None:
  """Records in `out` how its maps are made, or checks that it agrees with what is recorded there."""
  path = out / ABOUT
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    if holds_maps:
      raise FileExistsError(f"{out}: holds maps but no {ABOUT}, expected an empty folder") from None
    write_json(path, made_with, shared=True)
    return
  except ValueError as error:
    raise FileExistsError(f"{path}: not JSON ({error})") from None
  if found != made_with:
    raise FileExistsError(f"{path}: the maps here are of another model or other settings; expected another --out")


def _name(video: StavisVideo) -> tuple[str, str]:
  return video.database, video.name


def _folder(out: Path, video: StavisVideo) -> Path:
  return out / video.database / video.name


def _partial(out: Path, video: StavisVideo) -> Path:
  return partial_path(_folder(out, video))
