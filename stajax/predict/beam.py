"""Prediction on Apache Beam: the workers of any Beam runner predict videos and write their outputs.

The workers and the process that starts them share the videos and the folder for the outputs, on a disk that all of them
mount. As in preparation (`stajax.prepare.beam`), Beam is given numbers only, and the tasks and outcomes of each chunk
of videos lie in a folder beside the outputs. What is finished survives whatever happens to the pipeline, and the next
run leaves it as it is. A pipeline needs the extra `beam`; this module alone does not.
"""

import functools
import json
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stajax import runtime, screen
from stajax.files import make_folder, read_json, write_json, write_text
from stajax.files.lock import exclusive
from stajax.media import isolated
from stajax.predict.api import SaliencyModel
from stajax.predict.job import Job
from stajax.predict.names import is_done

CHUNK = 16
"""The most videos of a unit of work. It only decides how often workers report: each video is kept when it is done."""
_UNITS = 256
"""With fewer videos than this, each is a unit of its own, so that all workers get some."""
SUMMARY = "summary.jsonl"
"""A line for every video; no output of a video has this ending alone."""
_STAGING = ".predict.staging"

_one_at_a_time = threading.Lock()  # runners call a worker in several threads, and the model has one device


@dataclass(frozen=True)
class Outcome:
  """What became of a video.

  Attributes:
    video: Its file.
    name: What the names of its outputs begin with.
    frames: How many native frames it has; 0 if it failed or was done before.
    maps: How many maps were computed, likewise.
    seconds: How long that took.
    was_done: Whether an earlier run had finished it.
    notes: A line for each thing that had to be left out.
    error: Why it failed, on one line; "" if it did not.
  """

  video: str
  name: str
  frames: int = 0
  maps: int = 0
  seconds: float = 0.0
  was_done: bool = False
  notes: tuple[str, ...] = ()
  error: str = ""


def predict_one(job: Job, path: Path, name: str) -> Outcome:
  """Predicts a video in a worker, unless it is done: what a pipeline maps over videos.

  The model is loaded once in a process. Nothing is raised for what is wrong with a video, nor for what happens while it
  is predicted: the outcome says so.

  Args:
    job: How videos are predicted.
    path: The video.
    name: What the names of its outputs begin with; no other video may have it.

  Raises:
    ValueError, OSError: The model cannot be used, which is not a fault of the video.
  """
  with _one_at_a_time:
    model = _loaded(job)
    start = time.monotonic()
    try:
      if not job.overwrite and is_done(job.out, name, job.settings(model)):
        return Outcome(str(path), name, was_done=True)
      summary = job.predict(model, path, name)
    except Exception as error:  # as in `stajax predict`, no error of one video may stop the others
      return Outcome(str(path), name, error=screen.one_line(error, path))
    seconds = round(time.monotonic() - start, 3)
    return Outcome(str(path), name, summary.frames, summary.maps, seconds, notes=summary.notes)


@functools.lru_cache(maxsize=1)
def _loaded(job: Job) -> SaliencyModel:
  isolated.start()  # beside JAX and the model
  return job.load()


def predict_on_beam(
  job: Job, videos: Sequence[tuple[Path, str]], options: Sequence[str], chunk: int | None = None
) -> list[Outcome]:
  """Predicts videos in the workers of a Beam runner, and writes their outcomes as `SUMMARY` beside the outputs.

  Args:
    job: How videos are predicted; its folder is on a disk that all workers share.
    videos: Each video with the name that its outputs begin with.
    options: The options of the pipeline, such as `--runner=FlinkRunner`.
    chunk: The number of videos in a unit of work; by default up to `CHUNK`.

  Returns:
    The outcome of every video, in their order.

  Raises:
    OSError: The pipeline failed; what it has finished stays.
  """
  staging = job.out / _STAGING
  with exclusive(job.out / ".predict-beam.lock"):
    shutil.rmtree(staging, ignore_errors=True)  # a run that was stopped may have left it
    make_folder(staging)
    chunk = chunk or min(CHUNK, -(-len(videos) // _UNITS))
    chunks = [videos[start : start + chunk] for start in range(0, len(videos), chunk)]
    for number, part in enumerate(chunks):
      write_json(_tasks(staging, number), [[str(path.absolute()), name] for path, name in part])
    runtime.run_on_beam(options, partial(_predict_chunk, job, staging), len(chunks))
    found: list[dict[str, Any]] = [
      fields for number in range(len(chunks)) for fields in read_json(_outcomes(staging, number))
    ]
    # `dumps` writes ASCII, also where the name of a file is not UTF-8.
    write_text(job.out / SUMMARY, "".join(f"{json.dumps(fields)}\n" for fields in found))
    shutil.rmtree(staging, ignore_errors=True)
  return [_read(fields) for fields in found]


def _predict_chunk(job: Job, staging: Path, number: int) -> None:
  """Predicts the videos of a chunk in a worker, and writes their outcomes."""
  tasks = read_json(_tasks(staging, number))
  outcomes = [asdict(predict_one(job, Path(path), name)) for path, name in tasks]
  write_json(_outcomes(staging, number), outcomes, shared=True)  # a runner may do a chunk twice


def _read(fields: dict[str, Any]) -> Outcome:
  notes: dict[str, Any] = {"notes": tuple(fields["notes"])}
  return Outcome(**(fields | notes))


def _tasks(staging: Path, number: int) -> Path:
  return staging / f"videos-{number:06d}.json"


def _outcomes(staging: Path, number: int) -> Path:
  return staging / f"outcomes-{number:06d}.json"
