"""Writes a tree in the layout that `stajax.eyetracking` reads."""

from __future__ import annotations

import io
import shutil
import wave
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from stajax.data.jpeg import encode_jpeg
from stajax.eyetracking import GROUPS_FILE
from stajax.files import make_folder, put_in_place, write_json, write_text
from stajax.files.names import shorten_name
from stajax.media.spectrogram import SAMPLE_RATE
from stajax.prepare.fixations import Annotation

FRAMES, SOUND, ANNOTATIONS = "video_frames", "video_audio", "annotations"  # a tree's folders
_MAT_TEXT = b"MATLAB 5.0 MAT-file, written by stajax".ljust(116)
"""The text at the beginning of a MATLAB file."""


def write_video(
  root: Path,
  database: str,
  video: str,
  frames: Iterable[np.ndarray],
  samples: np.ndarray | Iterable[np.ndarray] | None,
  annotations: Iterable[Annotation | None] | None,
) -> tuple[int, int]:
  """Writes one video; each of its folders appears whole or not at all, and replaces an older one.

  Args:
    root: The tree.
    database: The database's name.
    video: The video's name.
    frames: The n frames, (H, W, 3) uint8 each.
    samples: The sound, 16 kHz mono float in [-1, 1], whole or in blocks; None for a video without sound.
    annotations: For each frame, its fixated pixels (H, W) bool, or how often each is fixated (H, W) int, and their
      density (H, W), or None if nobody looked at it; None for a video without annotations. A density uint8 is written
      as jpg, uint16 as png without loss.

  Returns:
    The number of frames, and how many of them are annotated.

  Raises:
    ValueError: A name is not a plain name of a folder, or the numbers of annotations and frames differ.
  """
  root = Path(root)
  for name in (database, video):
    if not name or Path(name).name != name or name in (".", ".."):
      raise ValueError(f"{name!r} is not the name of a folder")
  remove_unfinished(root, database, video)
  incoming = _incoming(root, database, video)
  try:
    counts = _write_frames(incoming, frames, annotations)
    if samples is not None:
      _write_wav(incoming / SOUND / f"{video}.wav", [samples] if isinstance(samples, np.ndarray) else samples)
    for part in (FRAMES, ANNOTATIONS, SOUND):
      target = root / part / database / video
      shutil.rmtree(target, ignore_errors=True)
      if (incoming / part).is_dir():
        make_folder(target.parent)
        put_in_place(incoming / part, target)
  finally:
    remove_unfinished(root, database, video)
  return counts


def remove_unfinished(root: Path, database: str, video: str) -> None:
  """Removes whatever a killed process has left of a video."""
  shutil.rmtree(_incoming(root, database, video), ignore_errors=True)


def _incoming(root: Path, database: str, video: str) -> Path:
  return Path(root) / f".incoming-{shorten_name(f'{database}-{video}')}"


def _write_frames(
  folder: Path, frames: Iterable[np.ndarray], annotations: Iterable[Annotation | None] | None
) -> tuple[int, int]:
  (folder / FRAMES).mkdir(parents=True)
  if annotations is None:
    annotated = ((frame, None) for frame in frames)
  else:
    (folder / ANNOTATIONS / "maps").mkdir(parents=True)
    annotated = zip(frames, annotations, strict=True)
  number = num_annotated = 0
  for number, (frame, annotation) in enumerate(annotated, start=1):
    (folder / FRAMES / f"img_{number:05d}.jpg").write_bytes(encode_jpeg(frame))  # encoded as in records
    if annotation is not None:
      fixated, density = annotation
      suffix = "png" if density.dtype == np.uint16 else "jpg"
      Image.fromarray(density).save(folder / ANNOTATIONS / "maps" / f"eyeMap_{number:05d}.{suffix}", quality=95)
      counts = fixated.astype(np.uint16 if fixated.max() > 255 else np.uint8)
      _write_mat(folder / ANNOTATIONS / f"fixMap_{number:05d}.mat", counts)
      num_annotated += 1
  return number, num_annotated


def _write_mat(path: Path, counts: np.ndarray) -> None:
  """Writes a MATLAB file without the time at which it is written, so that equal trees have equal bytes."""
  file = io.BytesIO()
  scipy.io.savemat(file, {"eyeMap": counts}, do_compression=True)
  file.seek(0)
  file.write(_MAT_TEXT)
  path.write_bytes(file.getvalue())


def _write_wav(path: Path, blocks: Iterable[np.ndarray]) -> None:
  path.parent.mkdir(parents=True)
  with wave.open(str(path), "wb") as file:
    file.setnchannels(1)
    file.setsampwidth(2)
    file.setframerate(SAMPLE_RATE)
    for block in blocks:
      scaled = np.clip(np.round(block * 32768), -32768, 32767)  # the inverse of how `stajax.media.audio` reads it
      file.writeframes(scaled.astype("<i2").tobytes())


def write_fold_lists(root: Path, database: str, *lists: Sequence[tuple[str, int, float]]) -> None:
  """Writes the test lists of a database; call it last, because a video counts as present once a list names it.

  Args:
    root: The tree.
    database: The database's name.
    lists: The rows (name, frames, frames per second) of each list. A single list is named
      `<database>_list_test_fps.txt`, several are named `<database>_list_test_{1,2,…}_fps.txt`.

  Raises:
    ValueError: A video's frames per second are not more than 0.
  """
  for number, rows in enumerate(lists, start=1):
    for name, _, fps in rows:
      if not fps > 0:
        raise ValueError(f"{name}: fps is {fps}, expected more than 0")
    text = "".join(f"{name} {num_frames} {fps:.12g}\n" for name, num_frames, fps in rows)
    suffix = f"_{number}" if len(lists) > 1 else ""
    write_text(Path(root) / "fold_lists" / f"{database}_list_test{suffix}_fps.txt", text)


def write_groups(root: Path, groups: Mapping[str, Iterable[str]]) -> None:
  """Writes named subsets of videos, `<database>/<subset>` → video names, which `stajax evaluate` scores as sets."""
  write_json(Path(root) / GROUPS_FILE, {name: sorted(videos) for name, videos in groups.items()})
