"""What a message about a wrong name or value says: the nearest known name, all names that are known, or what it is."""

import contextlib
import difflib
import io
import numbers
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

_KINDS = {
  "a whole number": (numbers.Integral,),
  "a number": (numbers.Real,),
  "a text": (str,),
  "a path": (str, os.PathLike),
}
"""What the types of arguments are called."""


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
  """Returns " did you mean `x`?" for the known name that is most like a given one, or "" if none is like it.

  Args:
    name: The name that was given.
    known: The names that there are.
    cutoff: How much both must be alike, from 0 (anything) to 1.
  """
  known = list(known)
  like = {text.lower(): text for text in reversed(known)}
  found = difflib.get_close_matches(name.lower(), like, n=1, cutoff=cutoff)
  return f" did you mean `{like[found[0]]}`?" if found else ""


def unknown(kind: str, name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
  """Returns a message about an unknown name, with the nearest known name (see `nearest`) and all of them.

  A field of a field may be named, as in `sta.optimizer.momentum`; its last part is compared.
  """
  known = list(known)
  return f"unknown {kind} {name!r};{nearest(name.rpartition('.')[2], known, cutoff)} Known: {', '.join(known)}"


def expected(name: str, known: Iterable[str]) -> str:
  """Returns "expected one of a, b, c", and the nearest of these names if one is like `name`."""
  known = list(known)
  found = nearest(name, known)
  return f"expected one of {', '.join(known)}" + (f";{found}" if found else "")


def misspelled(argv: Sequence[str], known: Iterable[str]) -> str:
  """Returns a message about the first unknown option that is like a known one, or "" if there is none."""
  options = {option.removeprefix("--") for option in known}
  for argument in argv:
    name = argument.partition("=")[0].replace("_", "-")
    bare = name.removeprefix("--")
    found = nearest(bare, sorted(options))
    if name.startswith("--") and bare not in options and found:
      return f"unknown option {name};{found.replace('`', '`--', 1)}"
  return ""


def option_names(show_help: Callable[[], object]) -> set[str]:
  """Returns the options that a text of `--help` names; `show_help` prints it and may end the program."""
  text = io.StringIO()
  with contextlib.redirect_stdout(text), contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
    show_help()
  return set(re.findall(r"--[\w.-]+", text.getvalue()))


def plain(drawn: str) -> str:
  """Returns the first part of an error that tyro drew in a box: one line, without the title and pydantic's details.

  A wrong choice gets the nearest one, and the choices are sorted.
  """
  drawn = re.sub(r"\x1b\[[\d;]*m", "", drawn)
  title, *parts = re.split(r"^╭.*\n|^[│ ]*[─-]{3,}.*\n", drawn, flags=re.MULTILINE)
  text = " ".join(parts[0].replace("│", " ").split()) if parts else title
  text = re.sub(r" \[type=.*| For further information visit \S*", "", text)
  text = re.sub(r"^Error parsing \w[\w.-]*: ", "", text)
  if (wrong := re.fullmatch(r"invalid choice '(.*)' for argument '(.*?)'\. Expected one of \((.*)\)\.", text)) is None:
    return text
  choices = [choice for choice in sorted(re.findall(r"'(.*?)'", wrong[3])) if choice != "None"]
  return f"{wrong[2]} {wrong[1]}: {expected(wrong[1], choices)}"


def is_address(path: str | Path) -> bool:
  """Returns whether a path is the address of something on another machine, such as https://example.org/a.mp4."""
  return re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)) is not None and not Path(path).exists()


def address_refusal(path: str | Path) -> str:
  """Returns a line that says that an address was given where a local file or folder is expected."""
  address = re.sub(r":/+", "://", str(path), count=1)  # a `Path` keeps one slash
  return f"{address}: is an address, expected a local file or folder: download it first"


def check_type(name: str, value: object, kind: str) -> None:
  """Raises TypeError, one line, if an argument of Python's API is of another type; True and False are no numbers.

  Args:
    name: The argument's name.
    value: Its value.
    kind: `a whole number`, `a number`, `a text` or `a path`.
  """
  if not isinstance(value, _KINDS[kind]) or isinstance(value, bool):
    raise TypeError(f"{name}: found {type(value).__name__}, expected {kind}")
