"""Several processes that compute together.

JAX ends a process by an abort, with pages of text, when another one is gone, and no exception can catch that. So the
process that a launcher starts only watches over a child that computes.
"""

import contextlib
import ctypes
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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
