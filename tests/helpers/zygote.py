"""A process that has loaded everything a training needs, and makes a child of itself for each training.

Loading takes most of the time of a training that is killed after seconds. Each child does what `stajax train` does
after it is loaded, in a session of its own.

  python -m helpers.zygote    reads requests on stdin and answers on stdout, a line of JSON each
"""

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

_LOADED = (
  *("tensorflow", "tensorflow_datasets", "orbax.checkpoint", "matplotlib.figure", "jinja2", "PIL.Image", "scipy.stats"),
  *("stajax.train.__main__", "stajax.train.stages.runner", "stajax.train.stages.write_report", "stajax.data.batches"),
)


@dataclasses.dataclass
class Life:
  """A child that trains.

  Attributes:
    pid: Its process id, and that of its session.
    output: The file of what it prints.
    returncode: Its exit code once it has ended; that of a signal is negative.
    processor: The processor time in seconds that it has taken, once it has ended.
  """

  pid: int
  output: Path
  returncode: int | None = None
  processor: float = 0.0
  _ended: threading.Event = dataclasses.field(default_factory=threading.Event)

  def poll(self) -> int | None:
    """Returns the exit code, None while it lives."""
    return self.returncode if self._ended.is_set() else None

  def wait(self, timeout: float | None = None) -> int | None:
    """Waits for its end; returns the exit code, None if it lives on."""
    self._ended.wait(timeout)
    return self.poll()

  def end(self, code: int, processor: float) -> None:
    """Notes that it has ended."""
    self.returncode, self.processor = code, processor
    self._ended.set()

  def send_signal(self, number: int) -> None:
    """Sends it a signal."""
    os.kill(self.pid, number)


class Zygote:
  """Starts trainings one after the other; a context manager."""

  def __enter__(self) -> "Zygote":
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    self._process = subprocess.Popen([sys.executable, "-m", "helpers.zygote"], env=environment, **pipes)
    self._read()  # it is loaded
    return self

  def __exit__(self, *_: object) -> None:
    self._process.communicate()

  def start(self, arguments: Sequence[str], output: Path, record: Path | None = None) -> Life:
    """Starts `stajax train` with some arguments.

    Args:
      arguments: Those of the command.
      output: The file for what it prints.
      record: Where to note what reaches the disk, see `helpers.power_loss`; None: nowhere.
    """
    request = [list(arguments), str(output), None if record is None else str(record)]
    print(json.dumps(request), file=self._process.stdin, flush=True)
    life = Life(self._read(), output)
    threading.Thread(target=lambda: life.end(self._read(), self._read() / 1000), daemon=True).start()
    return life

  def _read(self) -> int:
    assert self._process.stdout is not None
    line = self._process.stdout.readline()
    assert line, "the process that starts trainings has ended"
    return int(line)


def main() -> int:
  """Answers requests; in a child, trains and returns the exit code."""
  from stajax import runtime

  runtime.configure()
  for name in _LOADED:
    importlib.import_module(name)
  answers = os.fdopen(os.dup(1), "w", buffering=1)
  print(0, file=answers)
  for line in sys.stdin:
    arguments, output, record = json.loads(line)
    child = os.fork()
    if child == 0:
      answers.close()
      return _train(arguments, output, record)
    print(child, file=answers)
    _, status, usage = os.wait4(child, 0)
    print(os.waitstatus_to_exitcode(status), file=answers)
    print(round(1000 * (usage.ru_utime + usage.ru_stime)), file=answers)
  return 0


def _train(arguments: Sequence[str], output: str, record: str | None) -> int:
  os.setsid()
  signal.signal(signal.SIGINT, signal.default_int_handler)
  os.dup2(os.open(output, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND), 1)
  os.dup2(1, 2)
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
  sys.argv = ["stajax", "train", *arguments]
  if record is not None:
    from helpers import power_loss

    power_loss.record(Path(record))
  from stajax.train.__main__ import main as train

  return train(list(arguments))


if __name__ == "__main__":
  sys.exit(main())
