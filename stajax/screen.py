"""What commands print: lines that cannot steer a terminal, on streams that may be closed, full or unread."""

import os
import sys
from pathlib import Path
from typing import TextIO

from stajax.files.names import printable

_LONGEST = 2000
"""The most characters of a message, which may quote a file."""


def say(text: str, is_about_a_fault: bool = False) -> None:
  """Prints a text, on stderr if it is about a fault. Names in it cannot steer the terminal.

  Raises:
    OSError: The standard output is a file on a full disk, or the like; one line. What nobody reads is no error.
  """
  put(sys.stderr if is_about_a_fault else sys.stdout, f"{printable(text)}\n")


def counted(number: int, noun: str) -> str:
  """Returns a number and what it counts, such as "1 video" and "2 videos"."""
  return f"{number} {noun}{'s' * (number != 1)}"


def put(stream: TextIO, text: str) -> None:
  """Writes to a standard stream, together with what it holds back."""
  try:
    stream.write(text)
    stream.flush()
  except OSError as error:
    give_up(stream)
    if stream is sys.stdout and not isinstance(error, BrokenPipeError):
      raise OSError(f"cannot write to the standard output: {error.strerror}") from None


def give_up(stream: TextIO) -> None:
  """Lets a standard stream lead nowhere, so that nothing fails that is written to it, or that it holds back."""
  with open(os.devnull, "w") as nowhere:
    os.dup2(nowhere.fileno(), stream.fileno())


def open_missing_streams() -> None:
  """Opens standard streams that whoever started the process has closed; they lead nowhere.

  Otherwise the next file that is opened gets the number of one, and what libraries print is written into it.
  """
  for number in range(3):
    try:
      os.fstat(number)
    except OSError:  # it is the lowest number that is free, so it becomes that of the next file
      os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
  for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
    if getattr(sys, name) is None:
      setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, until the process ends


def one_line(error: BaseException | str, path: Path | None = None) -> str:
  """Returns an error's message without line breaks.

  Args:
    error: The error. Its type is named unless its message is written for people.
    path: The file or folder that the line has to name.
  """
  text = printable(" ".join(str(error).split())) or type(error).__name__
  if len(text) > _LONGEST:
    text = f"{text[: _LONGEST - 300]} … {text[-300:]}"
  kind = type(error)
  is_for_people = isinstance(error, str | OSError | ValueError) or kind.__module__.startswith("stajax.")
  if not is_for_people:
    text = f"{kind.__name__}: {text}"
  return text if path is None or str(path) in text else f"{path}: {text}"
