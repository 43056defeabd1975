"""Videos with what viewers looked at, to a tree in the STAViS layout: frames, sound, annotations, a fold list.

Every video is decoded by a child process with limits, frame by frame, and is finished by itself: a run that was stopped
goes on with the videos that are missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, tee
from pathlib import Path
from typing import Any

import numpy as np

from stajax import __version__
from stajax.eyetracking import StavisError, read_groups
from stajax.files import sha256_of_json, write_json
from stajax.media.audio import SAMPLE_RATE, audio_blocks
from stajax.media.file import Decoding, MediaError
from stajax.media.limits import Failure, Limits
from stajax.media.video import GRID_TOLERANCE, frame_times, native_frames, probe
from stajax.prepare.annotations import Annotations, FileAnnotations
from stajax.prepare.fixations import Annotation, Shown
from stajax.prepare.layouts.dhf1k import annotations
from stajax.prepare.listing import Item, Listing, ListingError, count_remarks, file_name, shown
from stajax.prepare.progress import work
from stajax.prepare.tree_files import (
  remove_unfinished,
  write_fold_lists,
  write_groups,
  write_video,
)

PREPARATION = 1  # another number writes all videos again
STATE = ".prepared"
SAME_RATE = 1e-3  # part by which a file's own rate may differ from that of its frames' times


@dataclass(frozen=True)
class Job:
  """One video of a tree.

  Attributes:
    item: the media file.
    annotations: of its frames, or None.
    key: depends on all that the video is made of.
  """

  item: Item
  annotations: Annotations | None
  key: str


@dataclass(frozen=True)
class Written:
  """What became of a video: its row in the fold list, or the reason why there is none.

  Attributes:
    key: of the job.
    frames: how many.
    fps: frames a second.
    annotated: frames with annotations.
    has_sound: whether it has sound.
    notes: what had to be left out, a line each.
    reason: why it could not be written.
  """

  key: str
  frames: int = 0
  fps: float = 0.0
  annotated: int = 0
  has_sound: bool = False
  notes: tuple[str, ...] = ()
  reason: str = ""


def prepare_tree(
  listing: Listing,
  annotations: Mapping[str, Annotations],
  out: Path,
  database: str,
  limits: Limits | None = None,
  processes: int = 1,
  groups: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
  """Writes the videos of a listing into a tree; those that are there and unchanged stay as they are.

  The tree may have other databases. Videos of an earlier run that are not listed any more stay, but no list names them.

  Args:
    listing: media files; their names become those of the videos.
    annotations: by the clips' names; a video without any can be predicted, but not scored.
    out: the tree.
    database: its name in the tree.
    limits: what a file may cost.
    processes: that decode.
    groups: clips by the name of a subset that is to be scored by itself.

  Returns:
    The content of `out/DATABASE_summary.json`.

  Raises:
    ValueError: nothing is listed, no video can be used, or a name is not one of a folder.
    OSError: the disk is full, or the child processes cannot work.
  """
  limits, out = limits or Limits(), Path(out)
  file_name(database, f"{out}: database")
  jobs = [_job(listing, item, annotations.get(item.name), limits) for item in listing.items]
  if not jobs:
    raise ValueError(f"{listing.root}: there is no video to write")
  written = [_state(out, database, job) for job in jobs]
  missing = [number for number, state in enumerate(written) if state is None]
  arguments = [(jobs[number], out, database, limits) for number in missing]
  for i, state in work("videos", len(jobs), write_one, arguments, processes, limits) if missing else ():
    if isinstance(state, Failure):  # may be otherwise next time, so it is not kept
      remove_unfinished(out, database, jobs[missing[i]].item.name)
      state = Written("", reason=state.reason)
    written[missing[i]] = state
  done = {job.item.name: state for job, state in zip(jobs, written) if not state.reason}
  skipped = [
    {"file": shown(job.item.path, listing.root), "reason": state.reason.replace(f"{listing.root}/", "")}
    for job, state in zip(jobs, written)
    if state.reason
  ]
  if not done:
    first = f"{skipped[0]['file']}: {skipped[0]['reason']}"
    raise ValueError(f"{out}: none of {len(jobs)} videos can be used (first: {first})")
  summary = {
    "source": listing.source, "database": database, "version": __version__, "limits": asdict(limits),
    "counts": {
      "videos": len(done),
      "frames": sum(state.frames for state in done.values()),
      "annotated_frames": sum(state.annotated for state in done.values()),
      "videos_without_sound": sum(not state.has_sound for state in done.values()),
    },
    "skipped": skipped,
    "notes": {name: list(state.notes) for name, state in done.items() if state.notes},
    "remark_counts": count_remarks(listing.remarks),
    "remarks": [asdict(remark) for remark in listing.remarks],
  }  # fmt: skip
  write_json(out / f"{database}_summary.json", summary)
  if groups:
    kept = {name: videos for name, videos in read_groups(out).items() if not name.startswith(f"{database}/")}
    own = {f"{database}/{name}": [video for video in videos if video in done] for name, videos in groups.items()}
    write_groups(out, kept | {name: videos for name, videos in own.items() if videos})
  write_fold_lists(out, database, [(name, state.frames, state.fps) for name, state in done.items()])
  return summary


def prepare_dhf1k_tree(listing: Listing, out: Path, limits: Limits | None = None, processes: int = 1) -> dict[str, Any]:
  """Writes all videos of DHF1K that have annotations, as the database `DHF1K` with its parts as subsets.

  Args:
    listing: of `stajax.prepare.layouts.dhf1k.read_dhf1k`.
    out, limits, processes: as for `prepare_tree`, which also has the result and the exceptions.
  """
  found = {item.name: annotations(listing.root, item.name) for item in listing.items}
  items = tuple(item for item in listing.items if found[item.name] is not None)
  files = {item.name: FileAnnotations(found[item.name].fixations, found[item.name].densities, "I") for item in items}
  groups = {part: [item.name for item in items if item.part == part] for part in listing.parts}
  viewed = Listing(listing.source, listing.root, (), items, listing.remarks)
  return prepare_tree(viewed, files, out, "DHF1K", limits, processes, groups)


def write_one(job: Job, out: Path, database: str, limits: Limits) -> Written:
  """Writes one video and then what became of it; called in a child process with limits.

  Raises:
    MemoryError: the process may not grow any more.
    OSError: the tree cannot be written.
  """
  notes: list[str] = []
  try:
    state = _write(job, out, database, limits, notes)
  except (MemoryError, OSError):
    raise
  except Exception as error:  # a damaged file must not stop the others, whatever it makes a library raise
    is_known = isinstance(error, MediaError | ListingError | StavisError)
    words = " ".join(str(error).split())[:500].removeprefix(f"{job.item.path}: ")
    state = Written(job.key, reason=words if is_known else f"cannot be decoded ({type(error).__name__}: {words})")
  write_json(_state_path(out, database, job.item.name), asdict(state))
  return state


def _write(job: Job, out: Path, database: str, limits: Limits, notes: list[str]) -> Written:
  path, decoding = job.item.path, Decoding(threads=1, max_pixels=limits.max_pixels)
  for file in (path, *filter(None, (job.item.wav,))):
    if file.exists() and (size := file.stat().st_size) > limits.max_bytes:
      raise MediaError(f"{file}: has {size} bytes, at most {limits.max_bytes} are taken")
  info = probe(path, decoding)
  frames = shown_frames(path, info.rate, (info.height, info.width), limits.max_seconds, decoding, notes)
  annotation = job.annotations.read(frames, notes) if job.annotations is not None else None
  samples = _sound(job.item, limits, decoding, notes)
  annotated = 0

  def annotations() -> Iterator[Annotation | tuple[None, None]]:
    nonlocal annotated
    for number in range(len(frames)):
      found = annotation(number)
      annotated += found is not None
      yield found or (None, None)

  fixations = densities = None
  if annotation is not None:
    one, other = tee(annotations())
    fixations, densities = (fixated for fixated, _ in one), (density for _, density in other)
  pictures = _pictures(path, frames, decoding, notes)
  count = write_video(out, database, job.item.name, pictures, frames.rate, samples, fixations, densities)
  return Written(job.key, count, frames.rate, annotated, samples is not None, tuple(notes))


def shown_frames(
  path: Path, rate: float, size: tuple[int, int], max_seconds: float, decoding: Decoding, notes: list[str]
) -> Shown:
  """The frames of a video at a constant rate: its own, each once, or, where its rate varies, those on show.

  Args:
    rate: that the file says it has, frames a second.
    size: height and width of the picture.
    max_seconds: a longer video is cut there.
    notes: receives a line if frames are left out or repeated.
  """
  times = []
  for time in frame_times(path, decoding):
    if time > 0 and time + GRID_TOLERANCE >= max_seconds:
      notes.append(f"longer than {max_seconds:g} s, cut there")
      break
    times.append(time)
  times = np.asarray(times)
  if len(times) == 1:
    return Shown(rate, np.zeros(1, np.int64), *size)
  own = (len(times) - 1) / float(times[-1])
  for candidate in (rate, own) if abs(rate / own - 1) < SAME_RATE else (own,):
    if np.abs(times * candidate - np.arange(len(times))).max() <= 0.5:
      return Shown(candidate, np.arange(len(times)), *size)
  usual = float(np.median(np.diff(times)))
  count = int(np.floor(times[-1] / usual + 0.5)) + 1
  numbers = np.searchsorted(times, np.arange(count) * usual + GRID_TOLERANCE, side="right") - 1
  notes.append(f"picture: its rate varies, shown at {1 / usual:g} frames a second: {len(times)} frames become {count}")
  return Shown(1 / usual, numbers, *size)


def _pictures(path: Path, frames: Shown, decoding: Decoding, notes: list[str]) -> Iterator[np.ndarray]:
  decoded = enumerate(native_frames(path, (frames.height, frames.width), notes, decoding))
  at, picture = -1, None
  for number in frames.numbers:
    while at < number:
      at, (_, picture) = next(decoded)
    yield picture


def _sound(item: Item, limits: Limits, decoding: Decoding, notes: list[str]) -> Iterator[np.ndarray] | None:
  """Blocks of the sound; None where there is none that can be used."""
  blocks = audio_blocks(item.wav or item.path, notes, decoding)
  try:
    first = next(blocks, None)
  except MediaError as error:
    if item.wav is None:
      raise
    notes.append(f"sound: {str(error).removeprefix(f'{item.wav}: ')}")  # the picture is fine
    return None
  return None if first is None else _cut(chain([first], blocks), round(limits.max_seconds * SAMPLE_RATE))


def _cut(blocks: Iterator[np.ndarray], length: int) -> Iterator[np.ndarray]:
  for block in blocks:
    yield block[:length]
    length -= len(block)
    if length <= 0:
      return


def _job(listing: Listing, item: Item, annotations: Annotations | None, limits: Limits) -> Job:
  file_name(item.name, f"{item.path}: name")
  files = [item.path, *filter(None, (item.wav,)), *(annotations.files() if annotations is not None else ())]
  about = {
    "files": [(shown(path, listing.root), *_stamp(path)) for path in files],
    "annotations": None if annotations is None else type(annotations).__name__,
    "sigma": getattr(annotations, "sigma", None),
    "first_frame": getattr(annotations, "first_frame", None),
    "limits": [limits.max_seconds, limits.max_pixels, limits.max_bytes],
    "preparation": PREPARATION,
    "version": __version__,
  }
  return Job(item, annotations, sha256_of_json(about)[:32])


def _stamp(path: Path) -> tuple[int, ...]:
  try:
    status = path.stat()
  except OSError:
    return (-1,)  # writing will say what is wrong
  return status.st_size, status.st_mtime_ns


def _state_path(out: Path, database: str, name: str) -> Path:
  return out / STATE / database / f"{name}.json"


def _state(out: Path, database: str, job: Job) -> Written | None:
  """What an earlier run made of the same job; None where it has not come to it, or its files are gone."""
  try:
    fields = json.loads(_state_path(out, database, job.item.name).read_text(encoding="utf-8"))
    state = Written(**{**fields, "notes": tuple(fields["notes"])})
  except (OSError, ValueError, TypeError, KeyError):
    return None
  trees = ["video_frames", *["annotations"] * (job.annotations is not None), *["video_audio"] * state.has_sound]
  is_there = state.reason or all((out / tree / database / job.item.name).is_dir() for tree in trees)
  return state if state.key == job.key and is_there else None
