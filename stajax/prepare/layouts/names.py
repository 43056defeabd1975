"""Names clips after the paths of their files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath


def name_clips(paths: Sequence[PurePath]) -> list[str]:
  """Returns a unique name for each relative path, of letters, digits and `-_.`: `dog/my clip.mp4` is `dog_my_clip`.

  Paths that would have the same name keep their suffix, and get a number if that is not enough. The names depend on the
  paths only, not on their order.
  """
  stems = [_plain(path.with_suffix("")) for path in paths]
  full = [_plain(path) for path in paths]
  names: list[str] = [""] * len(paths)
  taken: set[str] = set()
  shared = {stem for stem, number in Counter(stems).items() if number > 1}
  for index in sorted(range(len(paths)), key=lambda index: paths[index].as_posix()):
    name = full[index] if stems[index] in shared else stems[index]
    number = 2
    while name in taken:
      name, number = f"{full[index]}-{number}", number + 1
    taken.add(name)
    names[index] = name
  return names


def _plain(path: PurePath) -> str:
  return re.sub(r"[^\w.-]+", "_", "_".join(path.parts), flags=re.UNICODE)
