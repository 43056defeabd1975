"""The files that `stajax.predict` writes while it goes through a video: maps in parts, and the frames' numbers."""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from stajax.files import atomic_file

MAPS_PER_PART = 1000


class MapParts:
  """Maps as npz files, each written when it is full; the first replaces whatever an earlier run left."""

  def __init__(self, out: Path, name: str, fields: dict):
    self.out, self.name, self.fields, self.num_maps = out, name, fields, 0
    self._maps: np.ndarray | None = None  # of a whole part: many small ones would leave gaps where they were
    self._times: list[float] = []

  def record(self, timed_maps: Iterable[tuple[float, np.ndarray]]) -> Iterator[tuple[float, np.ndarray]]:
    """Passes times and maps (maximum 1) on while keeping them."""
    for time, saliency in timed_maps:
      if self._maps is None:
        self._maps = np.empty((MAPS_PER_PART, *saliency.shape), np.uint8)
      self._maps[len(self._times)] = np.round(saliency * 255)
      self._times.append(time)
      self.num_maps += 1
      if len(self._times) == MAPS_PER_PART:
        self._write()
      yield time, saliency

  def finish(self) -> None:
    if self._times:
      self._write()

  def _write(self) -> None:
    part = (self.num_maps - 1) // MAPS_PER_PART
    if part == 0:
      self._remove_earlier()
    target = self.out / f"{self.name}.maps-{part:03d}.npz"
    with atomic_file(target) as partial, partial.open("wb") as file:
      times = np.asarray(self._times, np.float64)
      np.savez_compressed(file, maps=self._maps[: len(times)], times=times, **self.fields)
    self._times = []

  def _remove_earlier(self) -> None:
    """The JSON file goes first: it says that the others belong together."""
    part = re.compile(re.escape(self.name) + r"\.maps-\d{3,}\.npz")
    (self.out / f"{self.name}.json").unlink(missing_ok=True)
    (self.out / f"{self.name}.overlay.mp4").unlink(missing_ok=True)
    for path in self.out.iterdir():
      if part.fullmatch(path.name):
        path.unlink()


class FrameLog:
  """A JSON object whose list `frames` is written entry by entry; gets its name when it is complete."""

  def __init__(self, path: Path):
    self._path, self._separator = path, "\n"

  def __enter__(self) -> "FrameLog":
    with contextlib.ExitStack() as stack:
      partial = stack.enter_context(atomic_file(self._path))
      # A file name that is not UTF-8 becomes a JSON escape.
      self._file = stack.enter_context(partial.open("w", encoding="utf-8", errors="backslashreplace"))
      self._opened = stack.pop_all()
    return self

  def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
    self._opened.__exit__(kind, error, traceback)

  def begin(self, fields: dict) -> None:
    self._file.write(_dumps(fields)[:-1] + ', "frames": [')

  def frame(self, entry: dict) -> None:
    self._file.write(self._separator + _dumps(entry))
    self._separator = ",\n"

  def end(self, fields: dict) -> None:
    self._file.write("\n], " + _dumps(fields)[1:] + "\n")


def _dumps(fields: dict) -> str:
  return json.dumps(fields, ensure_ascii=False, allow_nan=False)
