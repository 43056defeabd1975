"""Reads the logs of trained networks: a JSON object a line, with `step`, `loss` and other scalars."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from stajax.files import read_bytes


def read_log(path: str | Path) -> list[dict[str, float]]:
  """Returns the complete lines of a log; skips those that a killed process or a power failure left unfinished.

  Raises:
    OSError: It cannot be read.
  """
  text = read_bytes(path).decode(errors="replace") if Path(path).exists() else ""
  return list(_complete(text.splitlines()))


def _complete(lines: Iterable[str]) -> Iterator[dict[str, float]]:
  for line in lines:
    try:
      found = json.loads(line)
    except (ValueError, RecursionError):
      continue
    if isinstance(found, dict) and "step" in found and all(isinstance(value, int | float) for value in found.values()):
      yield found
