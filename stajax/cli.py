"""What all commands share: reading arguments and a configuration, reporting errors, and exit codes.

Exit codes: 0 all is done, 1 some inputs failed, 2 the arguments or the data cannot be used, 3 all inputs failed, 70 an
error that nobody expected (a file has the report), 75 ended by SIGTERM, 130 interrupted by Ctrl-C. After 75 and 130 the
same command goes on from what is finished.
"""

import contextlib
import dataclasses
import io
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from stajax import hints, screen, signals
from stajax.files import make_folder
from stajax.hints import address_refusal, is_address

if TYPE_CHECKING:
  from stajax.config import Config

T = TypeVar("T")

BAD_INPUT = 2
UNEXPECTED = 70
"""EX_SOFTWARE of sysexits.h."""
STOPPED = 75
"""After SIGTERM. It is EX_TEMPFAIL of sysexits.h."""
INTERRUPTED = 130
_FULL = re.compile(r"No space left on device|File too large|Disk quota exceeded|Read-only file system")
_TOO_LITTLE_MEMORY = re.compile(r"RESOURCE_EXHAUSTED|Out of memory")
"""What libraries say, in exceptions of many kinds and at length, where the disk or the memory is at fault."""


def parse(
  program: str,
  target: Callable[..., T],
  argv: Sequence[str] | None = None,
  known: Iterable[str] = (),
  usage: str | None = None,
  **options: Any,
) -> T:
  """Reads arguments. Wrong ones end the program with a line on stderr, and `--help` ends it with a text on stdout.

  Args:
    program: The command's name, such as `stajax predict`.
    target: The dataclass, model or function whose fields or arguments are the command's options.
    argv: The arguments; None: those of the process.
    known: Options that are read elsewhere; a misspelled one of them gets a hint, too.
    usage: The command's name in the text of `--help`, if it differs.
    options: Further arguments of `tyro.cli`.

  Returns:
    What `target` makes of them.

  Raises:
    SystemExit: The arguments are wrong (code 2), or ask for help (code 0).
  """
  import tyro

  argv = list(sys.argv[1:] if argv is None else argv)
  usage = usage or program

  def read(args: list[str]) -> T:
    return cast(T, tyro.cli(target, args=args, prog=usage, **options))

  message = io.StringIO()
  try:
    with contextlib.redirect_stderr(message):
      arguments = read(argv)
  except BrokenPipeError:  # whoever reads the text of `--help`, such as `head`, has seen enough
    screen.give_up(sys.stdout)
    raise SystemExit(0) from None
  except SystemExit as stop:
    if not stop.code:
      raise
  else:
    _refuse_addresses(program, arguments)
    return arguments
  known = {*known, *hints.option_names(lambda: read(["--help"]))}
  fault = hints.misspelled(argv, known) or hints.plain(message.getvalue())
  raise SystemExit(fail(program, f"{fault} (see `{usage} --help`)"))


def _refuse_addresses(program: str, arguments: Any) -> None:
  """Ends the program with a line on stderr if a file or folder among the arguments is on another machine."""
  if isinstance(arguments, Path) and is_address(arguments):
    raise SystemExit(fail(program, address_refusal(arguments)))
  if isinstance(arguments, tuple):
    for argument in cast("tuple[Any, ...]", arguments):
      _refuse_addresses(program, argument)
  elif dataclasses.is_dataclass(arguments):
    for field in dataclasses.fields(arguments):
      _refuse_addresses(program, getattr(arguments, field.name))


def make_out_folder(option: str, out: Path) -> None:
  """Makes the folder that an option names if it is missing.

  Raises:
    OSError: It cannot be made, for example because a file is in its place or above it; one line.
  """
  existing = next(path for path in (out.absolute(), *out.absolute().parents) if os.path.lexists(path))
  if not existing.is_dir():
    found = "a link to nothing" if not existing.exists() else "a file"
    raise NotADirectoryError(f"{option} {out}: {existing} is {found}, expected a folder")
  try:
    make_folder(out)
  except OSError as error:
    raise OSError(f"{option} {out}: cannot be made ({error.strerror or error})") from None


def parse_known(
  program: str, target: Callable[..., T], argv: Sequence[str] | None = None, **options: Any
) -> tuple[T, list[str]]:
  """Reads the arguments that `target` has, as `parse` does; returns what it makes of them, and the other arguments."""
  parsed: Any = parse(program, target, argv, return_unknown_args=True, **options)
  return parsed


@dataclasses.dataclass(frozen=True)
class ConfigArguments:
  """The options of a command that takes a configuration; further options are fields of a subclass."""

  config: Path
  """A configuration: a Python file that assigns `config = Config(…)`."""


Arguments = TypeVar("Arguments", bound=ConfigArguments)


def parse_with_config(
  program: str, target: type[Arguments], argv: Sequence[str] | None, description: str | None = None
) -> tuple[Arguments, "Config"]:
  """Reads the arguments of a command, and the configuration that its option `--config` names, with overrides.

  Args:
    program: The command's name, such as `stajax train`.
    target: The command's own options; all others are overrides of the configuration's fields.
    argv: The arguments; None: those of the process.
    description: What `--help` says first; with `--config FILE` it lists the configuration's fields instead.

  Raises:
    ConfigError: The configuration cannot be used.
    SystemExit: See `parse`.
  """
  from stajax import config as configuration

  argv = list(sys.argv[1:] if argv is None else argv)
  has_file = any(argument.partition("=")[0] == "--config" for argument in argv)
  arguments, overrides = parse_known(program, target, argv, description=description, add_help=not has_file)
  names = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(target)]
  return arguments, override(configuration.load(arguments.config), overrides, program, names)


def override(
  config: "Config", arguments: Sequence[str], program: str = "stajax train", known: Iterable[str] = ()
) -> "Config":
  """Applies overrides such as `--sta.steps 100` to a configuration; `--init NAME=FILE` adds to its field `init`.

  Args:
    config: The configuration.
    arguments: The overrides.
    program: The command's name in errors.
    known: Options of the command that are read elsewhere, as hints for misspelled ones.

  Raises:
    ConfigError: An override of `init` cannot be used.
    SystemExit: See `parse`.
  """
  import pydantic
  import tyro

  from stajax import config as configuration

  @dataclasses.dataclass(frozen=True)
  class Init:
    init: tyro.conf.UseAppendAction[tuple[str, ...]] = ()

  class Config(configuration.Config):
    """The fields of the configuration, which are options, too."""

    init: Annotated[dict[configuration.Part, str], tyro.conf.Fixed] = pydantic.Field(
      default_factory=dict[configuration.Part, str]
    )

  files, arguments = parse_known(program, Init, arguments, add_help=False)
  config = configuration.with_files(config, files.init)
  if not arguments:
    return config
  usage, default = f"{program} --config FILE", Config.model_construct(**dict(config))
  found = parse(program, Config, arguments, ("--init", *known), usage, default=default)
  return configuration.Config.model_validate(dict(found))


@dataclasses.dataclass(frozen=True)
class Part:
  """Which of several processes this one is, where they share the items of one command.

  Attributes:
    index: The number of this process, from 0.
    count: The number of processes.
  """

  index: int = 0
  count: int = 1

  def __str__(self) -> str:
    return f"{self.index}/{self.count}"

  def take(self, items: Sequence[T]) -> Sequence[T]:
    """Returns the items of this process: item i belongs to process i modulo the number of processes."""
    return items[self.index :: self.count]


WHOLE = Part()


def read_part(text: str | None) -> Part:
  """Reads an option such as `0/4`; None: one process does everything.

  Raises:
    ValueError: It is not of that form.
  """
  if text is None:
    return WHOLE
  found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
  if found is None or int(found[1]) >= int(found[2]):
    raise ValueError(f"--part {text}: expected the number of a process, from 0, and their count, such as 0/4 … 3/4")
  return Part(int(found[1]), int(found[2]))


def run(
  program: str,
  command: Callable[[], int],
  errors: tuple[type[Exception], ...] = (ValueError,),
  reports: bool = True,
  extra: str = "train",
) -> int:
  """Runs a command; returns its exit code, or another one after one line on stderr if it fails or is stopped.

  The base install is for prediction and scoring. What a command needs beside is in an extra. A command whose output
  nobody reads does its work all the same.

  Args:
    program: The command's name.
    command: Returns the exit code.
    errors: The exceptions that bad input raises, beside those of this package, of files, and of too little memory. Any
      other is a bug, which a report file describes.
    reports: Whether a bug is reported here instead of raised.
    extra: The extra that installs what may be missing.
  """
  screen.open_missing_streams()
  try:
    with signals.ended_by_sigterm(), signals.repeat_lost_signals():
      code = command()
      screen.put(sys.stdout, "")  # what is left would fail when Python ends, and then with a traceback
      return code
  except ModuleNotFoundError as error:
    name = (error.name or "").partition(".")[0]
    if name not in ("", "stajax"):
      return fail(program, f"needs the package {name}, which is not installed: pip install 'stajax[{extra}]'")
    return report(program, error)
  except KeyboardInterrupt:
    return fail(program, "interrupted", INTERRUPTED)
  except signals.Terminated as error:
    return fail(program, str(error), STOPPED)
  except MemoryError as error:
    return fail(program, f"needs more memory than there is ({screen.one_line(error)})")
  except Exception as error:
    is_own = isinstance(error, ValueError) and type(error).__module__.startswith("stajax.")
    if is_own or isinstance(error, OSError):
      return fail(program, error)
    if found := _FULL.search(str(error)):
      return fail(program, f"cannot write any more: {found[0]} ({screen.one_line(error)[:300]})")
    if _TOO_LITTLE_MEMORY.search(str(error)):
      return fail(program, f"needs more memory than there is ({screen.one_line(error)[:300]})")
    if isinstance(error, errors):
      return fail(program, error)
    if not reports:
      raise
    return report(program, error)


@contextlib.contextmanager
def ended_by_interrupts(program: str) -> Generator[None]:
  """Lets Ctrl-C and SIGTERM end the process at once in the block, after one line.

  For blocks that only load: native libraries crash if an exception interrupts their import.
  """
  if threading.current_thread() is not threading.main_thread():  # where signals cannot be taken
    yield
    return

  def leave(text: str, code: int) -> None:
    fail(program, text, code)
    os._exit(code)

  before = signal.signal(signal.SIGINT, lambda number, frame: leave("interrupted", INTERRUPTED))
  try:
    with signals.ended_at_once(lambda text: leave(text, STOPPED)):
      yield
  finally:
    signal.signal(signal.SIGINT, before)


def report(program: str, error: Exception) -> int:
  """Writes what is known about an unexpected error to a file; prints one line that names it, returns the exit code."""
  import platform
  import tempfile
  import traceback

  from stajax import __version__

  about = f"stajax {__version__}, Python {sys.version}, {platform.platform()}\n{shlex.join(sys.argv)}\n\n"
  try:
    handle, path = tempfile.mkstemp(prefix="stajax-report-", suffix=".txt")
    with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
      file.write(about + "".join(traceback.format_exception(error)))
    where = f"the report is in {path}"
  except OSError as fault:
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"raised in {place.filename}:{place.lineno}, and no report can be written ({screen.one_line(fault)})"
  return fail(program, f"an unexpected error, please report it ({screen.one_line(error)[:300]}); {where}", UNEXPECTED)


def fail(program: str, error: Exception | str, code: int = BAD_INPUT) -> int:
  """Prints an error as one line on stderr, after the command's name; returns the exit code."""
  screen.say(f"{program}: {screen.one_line(error)}", is_about_a_fault=True)
  return code


def exit_code(num_failed: int, num_inputs: int) -> int:
  """Returns the exit code of a command that went through all its inputs."""
  if not num_failed:
    return 0
  return 3 if num_failed == num_inputs else 1
