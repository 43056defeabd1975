"""The fenced blocks of README and the documentation, and how each of them is checked.

A comment directly above a block says how: `<!-- example: run -->` or `<!-- example: options -->`. Without one, Python
is run, and the options of shell commands are checked by the parser of the command itself.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from helpers.paths import ROOT

Check = Literal["run", "options", "shown"]

PAGES = (
  ROOT / "README.md",
  ROOT / "CONTRIBUTING.md",
  *sorted((ROOT / "docs").glob("*.md")),
  *sorted((ROOT / "launch").glob("*.md")),
  *sorted((ROOT / "benchmarks").glob("*.md")),
)

SHOWN = ("text", "json")
"""Languages of blocks that show something and are no examples."""

_DEFAULTS: dict[str, Check] = {"sh": "options", "python": "run", "{code-cell} ipython3": "run"}


@dataclass(frozen=True)
class Block:
  """A fenced block.

  Attributes:
    page: The page's path, relative to the repository.
    line: The line of the opening fence, counted from 1.
    language: What stands behind the fence.
    check: How the block is checked.
    text: What is between the fences.
  """

  page: str
  line: int
  language: str
  check: Check
  text: str

  def __str__(self) -> str:
    return f"{self.page}:{self.line} {self.language} ({self.check})"


def find_blocks(path: Path) -> Iterator[Block]:
  """Yields the fenced blocks of a page, but no directives of the documentation's site.

  Raises:
    ValueError: The language of a block is not known, so nobody would check it.
  """
  lines = path.read_text(encoding="utf-8").split("\n")
  page, start, mark = path.relative_to(ROOT).as_posix(), None, None
  for number, line in enumerate(lines):
    if start is None:
      if found := re.fullmatch(r"\s*<!-- example: (\w+) -->", line):
        mark = found[1]
      elif found := re.fullmatch(r"\s*```+(.*)", line):
        start, language = number, found[1].strip()
      elif line.strip():
        mark = None
    elif re.fullmatch(r"\s*```+", line):
      if not language.startswith("{") or language in _DEFAULTS:
        check = _check_of(language, mark, f"{page}:{start + 1}")
        yield Block(page, start + 1, language, check, "\n".join(lines[start + 1 : number]))
      start, mark = None, None


def _check_of(language: str, mark: str | None, where: str) -> Check:
  if language in SHOWN:
    return "shown"
  if language not in _DEFAULTS or mark not in (None, "run", "options"):
    raise ValueError(f"{where}: language {language!r}, example: {mark}; nobody would check this block")
  return mark or _DEFAULTS[language]


def commands(text: str) -> Iterator[list[str]]:
  """Yields the words of each command of a shell block: no comments, no `&&`, no variables set in front."""
  for line in text.replace("\\\n", " ").split("\n"):
    words: list[str] = []
    for word in [*shlex.split(line, comments=True), "&&"]:
      if word == "&&":
        while words and re.match(r"[A-Z_]+=", words[0]):
          words.pop(0)
        if words:
          yield words
        words = []
      else:
        words.append(word)
