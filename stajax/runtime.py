"""The settings of the process that must be made before JAX starts, and the processes that compute together.

Commands call `configure` first.
"""

import contextlib
import ctypes
import errno
import logging
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

# By default this release computes convolutions on a CPU with a library other than its own Eigen kernels, which are 1.4
# times as fast in our training steps. Other releases do not know the flag, and stop at unknown flags.
_SECONDS_A_LINE = 10.0
"""How long a progress bar is silent in a file."""
_CPU_FLAGS = {"0.10.2": "--xla_cpu_experimental_ynn_fusion_type="}


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
    OSError: It cannot be made or written; one line.
  """
  folder = cache("compiled")
  folder.mkdir(parents=True, exist_ok=True)
  if not os.access(folder, os.W_OK):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
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


# Several processes that compute together. JAX ends a process by an abort, with pages of text, when another one is gone,
# and no exception can catch that. So the process that a launcher starts only watches over a child that computes.

_WORKER = "STAJAX_WORKER"
"""Set in a child: its end of the pipe from the process that watches it, and the file for what C++ writes."""
_LAUNCHER = "STAJAX_LAUNCHER"
"""Set by a launcher whose end, even by force, is that of its processes."""
_PEER_SECONDS = "STAJAX_PEER_SECONDS"
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_LOST = re.compile(r"distributed service detected|coordination service|heartbeat|Barrier|(Gloo|NCCL).* failed")
"""What JAX says where another process has ended, or does not answer."""


def peer_seconds() -> int:
  """Returns after how many seconds of silence a process counts as gone: 30, or what STAJAX_PEER_SECONDS says."""
  return int(os.environ.get(_PEER_SECONDS, "30"))


def is_worker() -> bool:
  """Returns whether this is the child that `supervise` started."""
  return _WORKER in os.environ


def supervise(program: str, module: str, arguments: Sequence[str]) -> int:
  """Runs a command as one of several processes, in a child, and watches over it.

  The child is killed with this process. A signal is passed on, and a second one kills the child. If the child is ended
  by force, or stopped for as long as `peer_seconds`, a line on stderr says so.

  Args:
    program: The command's name in messages.
    module: The module of the command, for `python -m`.
    arguments: The command's arguments.

  Returns:
    The child's exit code; 1 if another process is gone, and 128 and the number of the signal if one ended the child.
  """
  handle, path = tempfile.mkstemp(prefix="stajax-", suffix=".log")
  os.close(handle)
  reading, writing = os.pipe()
  environment = {**os.environ, _WORKER: f"{reading}:{path}"}
  children: list[subprocess.Popen[bytes]] = []
  passed = _pass_signals(children)
  child = subprocess.Popen(
    [sys.executable, "-m", module, *arguments],
    env=environment,
    pass_fds=(reading,),
    process_group=0,  # so that Ctrl-C reaches it once, from here
    preexec_fn=_die_with_parent(),
  )
  children.append(child)
  os.close(reading)
  stopped = _wait(child.pid, writing)
  text = Path(path).read_text(errors="replace")
  status = child.returncode = 1 if stopped is None else os.waitstatus_to_exitcode(stopped)
  code, why = _explain(None if stopped is None else status, passed, text)
  if code == 128 + signal.SIGABRT or code == 128 + signal.SIGSEGV:
    why += f"; see {path}"
  else:
    os.unlink(path)
  if why:
    name = f"process {os.environ.get('JAX_PROCESS_ID', '')}".rstrip()
    print(f"\n{program}: {name}: {why}", file=sys.stderr)  # the child may have left a bar in the line
  return code


def _pass_signals(children: Sequence[subprocess.Popen[bytes]]) -> Sequence[int]:
  """Passes signals on to children from now on; returns the list of those that were passed on."""
  passed: list[int] = []
  last = -1.0

  def forward(number: int, _: Any) -> None:
    nonlocal last
    now = time.monotonic()
    if now - last < 1:  # a terminal and a launcher both send Ctrl-C
      return
    last = now
    passed.append(number)
    for child in children:
      with contextlib.suppress(ProcessLookupError):
        # Whoever asks again does not want to wait for the step to end.
        child.send_signal(number if len(passed) == 1 else signal.SIGKILL)

  for number in _FORWARDED:  # before there is a child: one that inherits an ignored signal goes on to ignore it
    signal.signal(number, forward)
  return passed


def _die_with_parent() -> Callable[[], None] | None:
  """Returns what a child has to call so that it is killed when its parent is; None where the system cannot do that."""
  if not sys.platform.startswith("linux"):
    return None
  prctl = ctypes.CDLL(None, use_errno=True).prctl
  return lambda: prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _wait(pid: int, pipe: int) -> int | None:
  """Waits for a child, and tells it each second that this process lives.

  Returns:
    The child's status; None if it had to be killed, since it was stopped for too long, or since the launcher is gone.
  """
  parent, stopped_at, told = os.getppid(), None, 0.0
  while True:
    found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
    now = time.monotonic()
    if found and os.WIFSTOPPED(status):
      stopped_at = now
    elif found and os.WIFCONTINUED(status):
      stopped_at = None
    elif found:
      return status
    is_alone = _LAUNCHER in os.environ and os.getppid() != parent
    if is_alone or (stopped_at is not None and now - stopped_at > peer_seconds()):
      os.kill(pid, signal.SIGKILL)
      os.waitpid(pid, 0)
      return None
    if now - told > 1:
      told = now
      with contextlib.suppress(OSError):  # the child may be ending
        os.write(pipe, b".")
    time.sleep(0.1)


def _explain(status: int | None, passed: Sequence[int], text: str) -> tuple[int, str]:
  """Returns the exit code, and why a child has ended if it could not say so itself."""
  if status is None:
    return 1, f"was stopped for {peer_seconds()} seconds or has lost its launcher, so it is ended"
  if status >= 0:
    return status, ""
  if status == -signal.SIGABRT and _LOST.search(text):
    return 1, "another process has ended or does not answer, so this one ends too"
  by = passed[0] if passed else -status
  return 128 + by, f"was ended by {signal.Signals(by).name}"


def join_processes() -> None:
  """Makes this process, the child of `supervise` or one alone, one of those that compute together.

  JAX finds them under SLURM, Open MPI and Cloud TPU; elsewhere JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
  JAX_PROCESS_ID name them.
  """
  if is_worker():
    pipe, path = os.environ[_WORKER].split(":", 1)
    _hide_native_output(path)
    threading.Thread(target=_end_with_parent, args=(int(pipe),), daemon=True).start()
  import jax

  number, index = os.environ.get("JAX_NUM_PROCESSES"), os.environ.get("JAX_PROCESS_ID")
  jax.distributed.initialize(
    num_processes=None if number is None else int(number),
    process_id=None if index is None else int(index),
    heartbeat_timeout_seconds=peer_seconds(),
    initialization_timeout=max(300, peer_seconds()),
  )


def _hide_native_output(path: str) -> None:
  """Lets Python go on writing to stdout and stderr, and sends what C++ writes there to a file."""
  shown = [os.fdopen(os.dup(number), "w", buffering=1, errors="backslashreplace") for number in (1, 2)]
  with open(path, "ab") as file:
    for number in (1, 2):
      os.dup2(file.fileno(), number)
  sys.stdout, sys.stderr = shown


def _end_with_parent(pipe: int) -> None:
  """Ends the process if the one that watches it is gone, or silent for too long."""
  while select.select([pipe], [], [], peer_seconds())[0]:
    if not os.read(pipe, 4096):
      os._exit(1)
  print("stajax: the process that watches this one is stopped, so this one ends", file=sys.stderr, flush=True)
  os._exit(1)


def run_together(program: str, command: Callable[[], int], report: Callable[[str, Exception], int]) -> int:
  """Runs a command in one of several processes. Only the first one prints about progress; errors come from any.

  If the command fails, the process ends at once, so that the others notice. Otherwise JAX would wait for minutes for
  processes that wait for this one.

  Args:
    program: The command's name in messages.
    command: Returns the exit code.
    report: Reports an unexpected exception, given the name for messages; returns the exit code.
  """
  import jax

  logging.disable(logging.ERROR)  # one line says why a process ends, and threads of libraries would add tracebacks
  index = jax.process_index()
  if index:
    os.environ["TQDM_DISABLE"] = "1"  # before the bars are imported
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, until the process ends
  try:
    code = command()
  except Exception as error:
    code, text = 1, " ".join(str(error).split())
    if isinstance(error, jax.errors.JaxRuntimeError | ValueError) and _LOST.search(text):
      reason = "the connection to another process is lost, which has ended or does not answer"
      print(f"{program}: process {index}: {reason} ({text[:200]})", file=sys.stderr)
    else:
      code = report(f"{program}: process {index}", error)
  if code:
    for stream in (sys.stdout, sys.stderr):
      stream.flush()
    os._exit(code)
  return code
