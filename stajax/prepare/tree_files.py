"""Writes a tree in the layout that `stavis.py` reads: the held-out part of the synthetic clips is one."""

import os
import shutil
import wave
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from stajax.data.jpeg import encode_jpeg
from stajax.eyetracking import GROUPS_FILE
from stajax.files import write_json, write_text

SAMPLE_RATE = 16_000


def write_video(
  root: Path,
  database: str,
  video: str,
  frames: Iterable[np.ndarray],
  fps: float,
  samples: np.ndarray | Iterable[np.ndarray] | None,
  fixations: Iterable[np.ndarray | None] | None,
  densities: Iterable[np.ndarray | None] | None,
) -> int:
  """Writes one video; each of its folders appears whole or not at all, and replaces an older one.

  Args:
    frames: n of (H, W, 3) uint8.
    fps: frames a second; written by `write_fold_lists`, checked here.
    samples: 16 kHz mono float in [-1, 1], whole or in blocks, or None for a video without sound.
    fixations: n of (H, W) bool, None for a frame that nobody looked at; None for a video without annotations.
    densities: n of (H, W) uint8, likewise.

  Returns:
    n, for the fold list.
  """
  root = Path(root)
  for name in (database, video):
    if not name or Path(name).name != name or name in (".", ".."):
      raise ValueError(f"{name!r} is not the name of a folder")
  if not fps > 0:
    raise ValueError(f"{video}: fps is {fps}, expected more than 0")
  remove_unfinished(root, database, video)
  incoming = _incoming(root, database, video)
  is_annotated, has_sound = fixations is not None and densities is not None, samples is not None
  parts = ["video_frames", *["annotations"] * is_annotated, *["video_audio"] * has_sound]
  try:
    for part in parts:
      (incoming / part).mkdir(parents=True)
    count = 0
    if is_annotated:
      (incoming / "annotations" / "maps").mkdir()
      annotated = zip(frames, fixations, densities, strict=True)
    else:
      annotated = ((frame, None, None) for frame in frames)
    for count, (frame, fixated, density) in enumerate(annotated, start=1):
      (incoming / "video_frames" / f"img_{count:05d}.jpg").write_bytes(encode_jpeg(frame))  # as records keep it
      if fixated is None or density is None:
        continue
      Image.fromarray(density).save(incoming / "annotations" / "maps" / f"eyeMap_{count:05d}.jpg", quality=95)
      mat = incoming / "annotations" / f"fixMap_{count:05d}.mat"
      scipy.io.savemat(mat, {"eyeMap": np.asarray(fixated, np.uint8)}, do_compression=True)
    if has_sound:
      blocks = [samples] if isinstance(samples, np.ndarray) else samples
      _write_wav(incoming / "video_audio" / f"{video}.wav", blocks)
    for part in ("video_frames", "annotations", "video_audio"):
      target = root / part / database / video
      shutil.rmtree(target, ignore_errors=True)
      if part in parts:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(incoming / part, target)
  finally:
    remove_unfinished(root, database, video)
  return count


def remove_unfinished(root: Path, database: str, video: str) -> None:
  """Removes what a killed process has left of a video."""
  shutil.rmtree(_incoming(root, database, video), ignore_errors=True)


def _incoming(root: Path, database: str, video: str) -> Path:
  return Path(root) / f".incoming-{database}-{video}"


def _write_wav(path: Path, blocks: Iterable[np.ndarray]) -> None:
  with wave.open(str(path), "wb") as file:
    file.setnchannels(1)
    file.setsampwidth(2)
    file.setframerate(SAMPLE_RATE)
    for block in blocks:
      scaled = np.clip(np.round(block * 32768), -32768, 32767)  # as `stajax.media.audio` reads it
      file.writeframes(scaled.astype("<i2").tobytes())


def write_fold_lists(
  root: Path, database: str, lists: Sequence[Sequence[tuple[str, int, float]]] | Sequence[tuple[str, int, float]]
) -> list[Path]:
  """Writes the test lists of a database, last of all: what no list names does not count as there.

  Args:
    lists: rows (name, frames, fps) of one list `<database>_list_test_fps.txt`, or a sequence of such lists, which
      become `<database>_list_test_{1,2,…}_fps.txt`.
  """
  single = bool(lists) and isinstance(lists[0][0], str)
  numbered = {"": lists} if single else {f"_{i}": rows for i, rows in enumerate(lists, start=1)}
  paths = []
  for suffix, rows in numbered.items():
    text = "".join(f"{name} {num_frames} {fps:.12g}\n" for name, num_frames, fps in rows)
    paths.append(Path(root) / "fold_lists" / f"{database}_list_test{suffix}_fps.txt")
    write_text(paths[-1], text)
  return paths


def write_groups(root: Path, groups: Mapping[str, Iterable[str]]) -> None:
  """Writes named subsets of videos, `<database>/<subset>` → video names, which `stajax.evaluate` scores as sets."""
  write_json(Path(root) / GROUPS_FILE, {name: sorted(videos) for name, videos in groups.items()})
