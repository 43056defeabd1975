"""Writes the maps of all videos of an eye-tracking set: `python -m stajax.predict --data stavis:ROOT`.

  OUT/<database>/<video>/img_00001.png    grey, each with a maximum of 255; numbered like the frames
  OUT/predict.json                        what made them

A video's folder appears when it is complete, and is then left as it is. `python -m stajax.evaluate --maps OUT` gives
the scores of `--model`.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from stajax.eyetracking import StavisVideo
from stajax.files import partial_path, write_json
from stajax.inference.dataset import set_maps
from stajax.inference.predictor import Predictor, to_uint8

ABOUT = "predict.json"
_COMPRESSION = 1  # of PNG; more takes longer than the maps


def predict_set(
  predictor: Predictor, videos: Sequence[StavisVideo], out: Path
) -> Iterator[tuple[StavisVideo, int, Exception | None]]:
  """Writes the maps of those videos whose folders are not there yet.

  Yields:
    A video when it is done, how many maps were written of it, and why it has none, if so.

  Raises:
    FileExistsError: `out` holds maps that another model made.
    OSError: nothing can be written.
  """
  missing = [video for video in videos if not _folder(out, video).is_dir()]
  _claim(out, predictor.made_with, len(missing) < len(videos))
  threads = os.cpu_count() or 1
  bar = tqdm(total=sum(video.num_frames for video in missing), unit="map", disable=None)
  with ThreadPoolExecutor(threads) as writers, bar:
    number, failed = 0, None  # maps of the current video; the last video that could not be written
    for video, maps in set_maps(predictor, predictor.begin_final, missing):
      if video is failed:
        continue
      try:
        if isinstance(maps, Exception):
          raise maps
        _write(writers, _partial(out, video), number, maps)
        bar.update(len(maps))
        number += len(maps)
        if number < video.num_frames:
          continue
        os.replace(_partial(out, video), _folder(out, video))
        yield video, number, None
      except Exception as error:  # a video must not stop those after it
        failed = video
        shutil.rmtree(_partial(out, video), ignore_errors=True)
        yield video, 0, error
      number = 0


def _write(writers: ThreadPoolExecutor, folder: Path, first: int, maps: np.ndarray) -> None:
  """Writes the maps (n, h, w) of a video's frames from 0-based frame `first` on."""
  if first == 0:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
  if not np.isfinite(maps).all():
    raise ValueError(f"the model's maps of frames {first + 1} to {first + len(maps)} are not finite")

  def save(at: int, values: np.ndarray) -> None:
    Image.fromarray(values).save(folder / f"img_{first + at + 1:05d}.png", compress_level=_COMPRESSION)

  list(writers.map(save, range(len(maps)), to_uint8(maps)))


def _claim(out: Path, made_with: dict[str, Any], holds_maps: bool) -> None:
  """Says in `out` what its maps are made with, or holds it against what it says."""
  path = out / ABOUT
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    if holds_maps:
      raise FileExistsError(f"{out}: holds maps but no {ABOUT}, expected an empty folder") from None
    write_json(path, made_with)
    return
  except ValueError as error:
    raise FileExistsError(f"{path}: not JSON ({error})") from None
  if found != made_with:
    raise FileExistsError(f"{path}: the maps here are of another model or other settings; expected another --out")


def _folder(out: Path, video: StavisVideo) -> Path:
  return out / video.database / video.name


def _partial(out: Path, video: StavisVideo) -> Path:
  return partial_path(_folder(out, video))
