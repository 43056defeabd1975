"""Names clips after the paths of their files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from unicodedata import normalize

from stajax.files.names import comparable_name, shorten_name


def name_clips(paths: Sequence[PurePath]) -> list[str]:
  """Returns a unique name for each relative path, of letters, digits and `-_.`: `dog/my clip.mp4` is `dog_my_clip`.

  Paths that would have the same name keep their suffix, and get a number if that is not enough. Names that differ only
  in upper and lower case count as the same, because they are one file on some systems. Very long names end in a digest.
  The names depend on the paths only, not on their order.
  """
  stems = [_plain(path.with_suffix("")) for path in paths]
  full = [_plain(path) for path in paths]
  names: list[str] = [""] * len(paths)
  taken: set[str] = set()
  shared = {stem for stem, number in Counter(map(comparable_name, stems)).items() if number > 1}
  for index in sorted(range(len(paths)), key=lambda index: paths[index].as_posix()):
    name = full[index] if comparable_name(stems[index]) in shared else stems[index]
    number = 2
    while comparable_name(name) in taken:
      name, number = f"{full[index]}-{number}", number + 1
    taken.add(comparable_name(name))
    names[index] = name
  return names


def _plain(path: PurePath) -> str:
  joined = normalize("NFC", "_".join(path.parts))
  return shorten_name(re.sub(r"[^\w.-]+", "_", joined, flags=re.UNICODE)).replace("~", "-")
