"""Turns videos and their annotations into a tree in the STAViS layout: frames, sound, annotations and a fold list.

A child process with limits decodes each video frame by frame. Videos are finished one by one, so a run that was stopped
continues with the missing videos.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stajax import __version__
from stajax.cli import make_out_folder
from stajax.eyetracking import read_groups
from stajax.files import read_json, write_json
from stajax.files.lock import exclusive
from stajax.files.manifest import sha256_of_json
from stajax.media.limits import Failure, Limits
from stajax.media.video import probe_picture
from stajax.prepare.annotations import Annotations
from stajax.prepare.constant_rate import choose_frames, decode_pictures
from stajax.prepare.item_media import check_bytes, decode_sound, item_files, make_decoding, read_stamp
from stajax.prepare.listing import Item, Listing, NothingUsableError, check_file_name, count_remarks, display_path
from stajax.prepare.progress import (
  complete,
  describe_none_usable,
  describe_skipped,
  explain_failure,
)
from stajax.prepare.tree_files import (
  ANNOTATIONS,
  FRAMES,
  SOUND,
  remove_unfinished,
  write_fold_lists,
  write_groups,
  write_video,
)

PREPARATION = 3  # a change of this number writes all videos again
STATE = ".prepared"  # the folder in a tree that keeps the outcome of each video


@dataclass(frozen=True)
class Job:
  """One video of a tree.

  Attributes:
    item: The media file.
    annotations: The annotations of its frames, or None.
    key: A digest of everything that the video is made from.
  """

  item: Item
  annotations: Annotations | None
  key: str


@dataclass(frozen=True)
class Written:
  """The outcome of a video: its row in the fold list, or the reason why there is none.

  Attributes:
    key: The key of the job.
    frames: The number of frames.
    fps: The frames per second.
    annotated: The number of frames with annotations.
    has_sound: Whether it has sound.
    notes: A line for each thing that had to be left out.
    reason: The reason why it could not be written.
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
  """Writes the videos of a listing into a tree; videos that are there and unchanged stay as they are.

  The tree may have other databases. Videos of an earlier run that are no longer listed stay, but no list names them.

  Args:
    listing: The media files; their names become those of the videos.
    annotations: The annotations by the names of the clips; a video without any can be predicted, but not scored.
    out: The tree.
    database: The database's name in the tree.
    limits: The limits for a file.
    processes: The number of processes that decode.
    groups: The names of clips by the name of a subset that is to be scored separately.

  Returns:
    The content of `out/DATABASE_summary.json`.

  Raises:
    NothingUsableError: No video can be used.
    ValueError: Nothing is listed, or a name is not a plain name of a folder.
    OSError: The disk is full, or the child processes cannot work.
  """
  limits, out = limits or Limits(), Path(out)
  check_file_name(database, f"{out}: database")
  jobs = [_job(listing, item, annotations.get(item.name), limits) for item in listing.items]
  if not jobs:
    raise ValueError(f"{listing.root}: there is no video to write")
  make_out_folder("--out", out)
  with exclusive(out / f".{database}.lock"):
    return _prepare_tree(listing, jobs, out, database, limits, processes, groups or {})


def _prepare_tree(
  listing: Listing,
  jobs: Sequence[Job],
  out: Path,
  database: str,
  limits: Limits,
  processes: int,
  groups: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
  written = _write_missing(jobs, out, database, limits, processes)
  done = {job.item.name: state for job, state in zip(jobs, written) if not state.reason}
  skipped = [
    describe_skipped(display_path(job.item.path, listing.root), state.reason, listing.root)
    for job, state in zip(jobs, written)
    if state.reason
  ]
  if not done:
    raise NothingUsableError(describe_none_usable(out, "videos", skipped))
  summary = {
    "source": listing.source, "database": database, "version": __version__, "limits": asdict(limits),
    "counts": _counts(done.values()),
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


def _write_missing(jobs: Sequence[Job], out: Path, database: str, limits: Limits, processes: int) -> list[Written]:
  """Writes the videos that an earlier run has not written; returns the outcomes of all, in their order."""
  found = [_earlier_state(out, database, job) for job in jobs]
  results = complete("videos", found, write_one, [(job, out, database, limits) for job in jobs], processes, limits)
  written = []
  for job, result in zip(jobs, results):
    if isinstance(result, Failure):  # it is tried again next time, so it is not stored
      remove_unfinished(out, database, job.item.name)
      result = Written("", reason=result.reason)
    written.append(result)
  return written


def _counts(done: Iterable[Written]) -> dict[str, int]:
  videos = list(done)
  return {
    "videos": len(videos),
    "frames": sum(video.frames for video in videos),
    "annotated_frames": sum(video.annotated for video in videos),
    "videos_without_sound": sum(not video.has_sound for video in videos),
  }


def write_one(job: Job, out: Path, database: str, limits: Limits) -> Written:
  """Writes one video and then its outcome; it is called in a child process with limits.

  Raises:
    MemoryError: The process may not grow any more.
    OSError: The tree cannot be written.
  """
  try:
    state = _write(job, out, database, limits)
  except (MemoryError, OSError):
    raise
  except Exception as error:  # a damaged file must not stop the others, whatever it makes a library raise
    state = Written(job.key, reason=explain_failure(error, job.item.path))
  write_json(_state_path(out, database, job.item.name), asdict(state))
  return state


def _write(job: Job, out: Path, database: str, limits: Limits) -> Written:
  notes: list[str] = []
  check_bytes(job.item, limits)
  info = probe_picture(job.item.path, make_decoding(limits))
  frames = choose_frames(info, limits, notes)
  annotations = None if job.annotations is None else job.annotations.read(frames, notes)
  samples = decode_sound(job.item, limits, notes) or None
  shown_pictures = decode_pictures(info, frames, limits, notes)
  num_frames, num_annotated = write_video(out, database, job.item.name, shown_pictures, samples, annotations)
  return Written(job.key, num_frames, frames.rate, num_annotated, samples is not None, tuple(notes))


def _job(listing: Listing, item: Item, annotations: Annotations | None, limits: Limits) -> Job:
  check_file_name(item.name, f"{item.path}: name")
  files = [*item_files(item), *(annotations.files() if annotations is not None else ())]
  unannotated = {"annotations": None, "sigma": None, "first_frame": None}
  about = {
    "files": [(display_path(path, listing.root), *read_stamp(path)) for path in files],
    **(unannotated if annotations is None else annotations.identity()),
    "limits": [limits.max_seconds, limits.max_pixels, limits.max_bytes, limits.sound],
    "preparation": PREPARATION,
    "version": __version__,
  }
  return Job(item, annotations, sha256_of_json(about)[:32])


def _state_path(out: Path, database: str, name: str) -> Path:
  return out / STATE / database / f"{name}.json"


def _earlier_state(out: Path, database: str, job: Job) -> Written | None:
  """Returns the outcome of the same job from an earlier run, or None if there is none or its files are gone."""
  try:
    fields = read_json(_state_path(out, database, job.item.name))
    state = Written(**{**fields, "notes": tuple(fields["notes"])})
  except (OSError, ValueError, TypeError, KeyError):
    return None
  parts = [FRAMES, *[ANNOTATIONS] * (job.annotations is not None), *[SOUND] * state.has_sound]
  is_there = state.reason or all((out / part / database / job.item.name).is_dir() for part in parts)
  return state if state.key == job.key and is_there else None
