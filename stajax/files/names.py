"""Names of files, and texts from files: short enough for a disk, and harmless in a terminal or a spreadsheet."""

import csv
import hashlib
import io
import os
import re
import unicodedata
from collections.abc import Iterable

LONGEST_NAME = 200  # bytes; file systems take 255, and what is written gets suffixes, also while it is incomplete
_FORMULAS = ("=", "+", "-", "@")  # how a text begins that a spreadsheet takes for one
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?")


def shorten_name(name: str, longest: int = LONGEST_NAME) -> str:
  """Returns a name of a file; if it has more than `longest` bytes, its beginning and a digest of all of it."""
  encoded = os.fsencode(name)
  if len(encoded) <= longest:
    return name
  start = encoded[: longest - 9].decode(errors="ignore")  # a character may not be cut
  return f"{start}~{hashlib.sha256(encoded).hexdigest()[:8]}"


def comparable_name(name: str) -> str:
  """Returns a form of a name that is the same for all names that some file systems take for one.

  They ignore whether letters are large or small, and whether accents are characters of their own (NFC and NFD).
  """
  return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def printable(text: str) -> str:
  """Returns a text in which characters that steer a terminal, and those that cannot be encoded, are escapes."""
  return "".join(x if x.isprintable() or x in "\n\t" else x.encode("unicode_escape").decode() for x in text)


def csv_text(rows: Iterable[Iterable[object]]) -> str:
  """Returns rows as comma-separated values that a spreadsheet only shows.

  A text that it would take for a formula gets a quotation mark before it, as spreadsheets themselves do it; characters
  that steer terminals become escapes. `csv_name` gives the text back.
  """
  text = io.StringIO()
  csv.writer(text, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
  return text.getvalue()


def _cell(value: object) -> object:
  if not isinstance(value, str):
    return value
  cell = printable(value.replace("\n", "\\n").replace("\t", "\\t"))
  is_formula = cell.removeprefix("'").startswith(_FORMULAS) and not _NUMBER.fullmatch(cell)
  return f"'{cell}" if is_formula else cell


def csv_name(cell: str) -> str:
  """Returns the name for which `csv_text` wrote a cell."""
  return cell[1:] if cell.startswith("'") and cell[1:].removeprefix("'").startswith(_FORMULAS) else cell
