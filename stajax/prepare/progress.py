"""The parts that all preparations share: recognising finished sets, resuming with a progress bar, naming failures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from stajax import runtime
from stajax.data.staging import staging_of
from stajax.eyetracking import StavisError
from stajax.files import make_folder, read_json
from stajax.media.file import MediaError
from stajax.media.limits import Failure, Limits, run_in_children
from stajax.prepare.clip_staging import ClipStaging
from stajax.prepare.listing import ListingError

T = TypeVar("T")


def read_finished(path: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
  """Returns the summary of a finished preparation, or None if there is nothing yet.

  Args:
    path: The folder of a set (or of a tree) with a `summary.json`.
    settings: The settings, as JSON values, that it must have been made with; the summary may have more.

  Raises:
    ValueError: It was made with other settings, or is something else.
  """
  if not path.exists():
    return None
  try:
    summary = read_json(path / "summary.json")
    made = summary["settings"]
    if not isinstance(made, dict):
      raise TypeError("settings are not an object")
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ValueError(f"{path}: exists, but is not something that this command made; choose another folder") from error
  differing = [name for name in settings if made.get(name) != settings[name]]
  if differing:
    both = "; ".join(f"{name} {made.get(name)} there, {settings[name]} now" for name in differing)
    raise ValueError(f"{path}: was made with other settings ({both}); choose another folder")
  return summary


def open_staging(out: Path) -> ClipStaging:
  """Opens the staging folder of a set, which lies beside the set."""
  make_folder(out.parent)
  return ClipStaging(staging_of(out))


def work(
  label: str,
  total: int,
  function: Callable[..., T],
  tasks: Sequence[tuple[Any, ...]],
  processes: int,
  limits: Limits | None = None,
) -> Iterator[tuple[int, T | Failure]]:
  """Calls a function for every task, as `run_in_children` does, with a progress bar.

  Args:
    label: The bar's label.
    total: The number of clips on the bar; all of them except the tasks are done already.
    function: The function.
    tasks: The arguments of each call.
    processes: The number of processes that work at the same time.
    limits: The limits for a task.

  Yields:
    The number of each finished task, and what the function returned or the failure.
  """
  if not tasks:
    return
  with runtime.progress(label, total, "clip", total - len(tasks)) as bar:
    for index, result in run_in_children(function, tasks, min(processes, len(tasks)), limits):
      bar.update()
      yield index, result


def complete(
  label: str,
  found: Sequence[T | None],
  function: Callable[..., T],
  tasks: Sequence[tuple[Any, ...]],
  processes: int,
  limits: Limits,
) -> list[T | Failure]:
  """Does the tasks that an earlier run has not done.

  Args:
    label: The progress bar's label.
    found: The result of each task from an earlier run, or None if there is none.
    function: The function that does a task.
    tasks: The arguments of the function for each task.
    processes: The number of processes that work at the same time.
    limits: The limits for a task.

  Returns:
    The results of all tasks, in their order.
  """
  missing = [number for number, result in enumerate(found) if result is None]
  left = [tasks[number] for number in missing]
  done = {missing[i]: result for i, result in work(label, len(found), function, left, processes, limits)}
  return [done[number] if result is None else result for number, result in enumerate(found)]


def explain_failure(error: Exception, path: Path) -> str:
  """Returns the reason why a file cannot be used, on one line in characters that can be printed anywhere.

  If a library raised the error, the reason names its type.
  """
  words = " ".join(str(error).removeprefix(f"{path}: ").split())[:500].encode("utf-8", "backslashreplace").decode()
  if isinstance(error, MediaError | ListingError | StavisError):
    return words
  return f"cannot be decoded ({type(error).__name__}: {words})"


def describe_skipped(file: str, reason: str, root: Path) -> dict[str, str]:
  """Returns a summary's entry for a file that cannot be used; the reason names files relative to the root."""
  return {"file": file, "reason": reason.replace(f"{root}{os.sep}", "")}


def describe_none_usable(where: Path, files: str, skipped: Sequence[dict[str, str]]) -> str:
  """Returns the error message for a set whose files were all skipped; `files` is the word for them."""
  first = f"{skipped[0]['file']}: {skipped[0]['reason']}"
  return f"{where}: none of {len(skipped)} {files} can be used (first: {first})"
