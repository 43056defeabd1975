"""The settings of the process that must be made before JAX starts, its caches, limits and progress bars.

Commands call `configure` first.
"""

import contextlib
import errno
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

_SECONDS_A_LINE = 10.0
"""How long a progress bar is silent in a file."""
_LEAST_SPACE = 8 * 2**20
"""Bytes that a disk must have left for compiled programs. JAX would warn of every single one that it cannot keep."""
# By default this release computes on a CPU with a library. Its convolutions take 1.4 times as long in our training
# steps as XLA's own Eigen kernels, but its sums, as of batch normalisation, a tenth of what XLA's take. So it computes
# sums only, with small convolutions right before them. Other releases stop at flags that they do not know.
_CPU_FLAGS = {"0.10.2": "--xla_cpu_experimental_ynn_fusion_type=reduce"}


def configure() -> None:
  """Sets XLA's flags for a CPU if the release knows them, keeps compiled programs between runs, and quiets start-up.

  Variables that the user has set in the environment stay as they are.
  """
  import jaxlib.version

  flag = _CPU_FLAGS.get(jaxlib.version.__version__)
  flags = os.environ.get("XLA_FLAGS", "")
  if flag and "ynn" not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()
  quiet_tensorflow()
  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    try:
      os.environ["JAX_COMPILATION_CACHE_DIR"] = str(compiled_programs())
    except OSError as error:
      os.environ["JAX_COMPILATION_CACHE_DIR"] = ""  # JAX would warn of every program, and this says it once
      print(f"note: compiled programs are not kept for the next run: {error}", file=sys.stderr)
  logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns where its own cache cannot be written
  # Ten small programs, of some tenths of a second each, would otherwise be compiled at every start of `predict`.
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def quiet_tensorflow() -> None:
  """Keeps what TensorFlow says at its start off the screen; to be called before it is loaded.

  Its notice about oneDNN comes at every level of its log, so oneDNN is off. It is only for what JAX computes here.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")


@contextlib.contextmanager
def quiet_libraries() -> Generator[None]:
  """Keeps what C++ libraries write to the standard error off the screen; exceptions tell what matters."""
  sys.stderr.flush()
  screen = os.dup(2)
  try:
    with open(os.devnull, "w") as nowhere:
      os.dup2(nowhere.fileno(), 2)
    yield
  finally:
    os.dup2(screen, 2)
    os.close(screen)


def progress(description: str, total: int | None, unit: str, done: int = 0, **options: Any) -> Any:
  """Returns a progress bar of tqdm. On a terminal it is drawn again and again, in a file it is a line now and then.

  Args:
    description: What is being done.
    total: How much there is to do; None where nobody knows.
    unit: What is counted.
    done: How much was done before.
    **options: Further arguments of tqdm.
  """
  from tqdm import tqdm  # late, because not every command has a bar

  if sys.stderr.isatty():
    return tqdm(desc=description, total=total, unit=unit, initial=done, dynamic_ncols=True, **options)
  every = {"delay": _SECONDS_A_LINE, "mininterval": _SECONDS_A_LINE, "maxinterval": _SECONDS_A_LINE}
  return tqdm(desc=description, total=total, unit=unit, initial=done, file=_Lines(), ncols=0, **every, **options)


class _Lines:
  """What tqdm writes to in place of a terminal: each state of the bar becomes a line of the standard error."""

  def write(self, text: str) -> None:
    if line := text.strip():
      with contextlib.suppress(OSError):  # nobody reads it, or the disk is full: that shall end nothing
        print(line, file=sys.stderr, flush=True)

  def flush(self) -> None:
    pass  # each line is written at once


def cache(name: str) -> Path:
  """Returns a folder in the user's cache, for files that can be made or fetched again.

  XDG_CACHE_HOME names the cache; where it is missing, empty or relative, that is `~/.cache`.

  Raises:
    FileNotFoundError: The user has no home folder either; one line.
  """
  given = os.environ.get("XDG_CACHE_HOME", "")
  try:
    folder = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
  except RuntimeError:
    found = "no home folder for a cache, expected one in HOME, or a folder for the cache in XDG_CACHE_HOME"
    raise FileNotFoundError(found) from None
  return folder / "stajax" / name


def compiled_programs() -> Path:
  """Returns the folder in the user's cache for compiled programs, which is made if it is missing.

  Raises:
    OSError: It cannot be made or written, or the disk is nearly full; one line.
  """
  folder = cache("compiled")
  folder.mkdir(parents=True, exist_ok=True)
  if not os.access(folder, os.W_OK):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
  if shutil.disk_usage(folder).free < _LEAST_SPACE:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
  return folder


@contextlib.contextmanager
def hidden_interrupts() -> Generator[None]:
  """Hides Ctrl-C from the processes that are started in the block, for ever.

  A terminal sends it to all, but the process that started them decides when they end, and what is printed.
  """
  if not hasattr(signal, "pthread_sigmask"):  # Windows
    yield
    return
  resource_tracker.ensure_running()  # its start, with the first process, would show the signal again
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def limit_memory(memory: int) -> None:
  """Limits the number of bytes by which the address space of this process may grow, on Linux only."""
  try:
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
  except (ImportError, OSError):  # not Linux
    return
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  _, most = resource.getrlimit(resource.RLIMIT_AS)
  wanted = pages * resource.getpagesize() + memory
  resource.setrlimit(resource.RLIMIT_AS, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


def run_on_beam(options: Sequence[str], function: Callable[[int], None], count: int) -> None:
  """Calls a function for the numbers below `count` in the workers of an Apache Beam runner.

  Some runners may call it twice for a number.

  Args:
    options: The options of the pipeline, such as `--runner=FlinkRunner`.
    function: A function that can be pickled.
    count: How many numbers there are.

  Raises:
    OSError: Beam is not installed, or the pipeline failed; one line.
  """
  try:
    import apache_beam as beam  # pyright: ignore[reportMissingImports]  # it comes with the extra `beam` only
    from apache_beam.options.pipeline_options import PipelineOptions  # pyright: ignore[reportMissingImports]
  except ImportError:
    raise OSError("Apache Beam is not installed: pip install 'stajax[beam]'") from None
  try:
    with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
      _ = pipeline | beam.Create(range(count)) | beam.Reshuffle() | beam.Map(function)
  except Exception as error:  # a runner raises whatever it likes, with the worker's whole traceback as the message
    lines = [line for line in str(error).splitlines() if line.strip()]
    raise OSError(f"the Beam pipeline failed: {lines[-1].strip() if lines else type(error).__name__}") from error
