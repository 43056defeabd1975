"""What all preparations share: a finished set stays as it is, a started one goes on, and a bar shows how far it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from stajax.media.limits import Failure, Limits, run_in_children
from stajax.prepare.staging import Staging

T = TypeVar("T")


def finished(path: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
  """The summary of a finished preparation; None where there is nothing yet.

  Args:
    path: the folder of a set (or of a tree) with a `summary.json`.
    settings: what it must have been made with, JSON values; the summary may have more.

  Raises:
    ValueError: it was made with other settings, or is something else.
  """
  if not path.exists():
    return None
  try:
    summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
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


def staging_of(out: Path) -> Staging:
  """The staging folder of a set, beside it."""
  out.parent.mkdir(parents=True, exist_ok=True)
  return Staging(out.with_name(f".{out.name}.staging"))


def work(
  label: str,
  total: int,
  function: Callable[..., T],
  tasks: Sequence[tuple[Any, ...]],
  processes: int,
  limits: Limits | None = None,
) -> Iterator[tuple[int, T | Failure]]:
  """`run_in_children` with a progress bar over `total` clips, of which all but the tasks are done."""
  with tqdm(total=total, initial=total - len(tasks), desc=label, unit="clip", disable=None) as bar:
    for index, result in run_in_children(function, tasks, min(processes, max(1, len(tasks))), limits):
      bar.update()
      yield index, result
