"""Interrupts whole trainings again and again at random times, and compares what they end with.

  python -m helpers.interrupted CONFIG REFERENCE FOLDER --count 100 --span 8 --signal KILL --seed 0

Each life of a training lasts for a random time after it has taken its work folder, uniformly up to `--span` seconds of
processor time, and ends by a signal; the next life goes on in the same folder. Every training that ends is compared
with REFERENCE, the work folder of one that was left alone (it is made if it is missing), and another one is begun in a
fresh folder until there were as many interruptions.
"""

import argparse
import contextlib
import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from helpers import power_loss
from helpers.paths import ROOT
from helpers.work_folders import LOCK, Reader, check
from helpers.zygote import Life, Zygote

LONGEST_END = 60
"""Within how many seconds all processes have to end on a machine that nobody else uses."""
_LAUNCHER = ROOT / "launch" / "local_processes.sh"
_LONGEST_LIFE = 15 * 60


@dataclasses.dataclass
class Interruption:
  """How one life of a training ended.

  Attributes:
    stage: The stage that was being done.
    code: The exit code.
    seconds: How long after the signal all processes had ended.
    processor: The processor time in seconds that the first process took for that, which other users of the machine
      change less.
    lines: What was on the screen besides progress.
    left: The processes that are left.
  """

  stage: str
  code: int
  seconds: float
  processor: float
  lines: list[str]
  left: list[int]


class Launched:
  """Several processes, each on one device, that the launcher starts in a session of their own.

  Attributes:
    pid: The process id of the launcher.
    output: The file of what they print.
  """

  def __init__(self, arguments: Sequence[str], output: Path, processes: int) -> None:
    paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PATH": paths}
    with output.open("w") as file:
      pipes = {"stdout": file, "stderr": subprocess.STDOUT, "start_new_session": True}
      self._process = subprocess.Popen([str(_LAUNCHER), str(processes), *arguments], env=environment, **pipes)
    self.pid, self.output = self._process.pid, output

  def poll(self) -> int | None:
    """Returns the exit code, None while the launcher lives."""
    return self._process.poll()

  def wait(self, timeout: float | None = None) -> int | None:
    """Waits for the end of the launcher; returns the exit code, None if it lives on."""
    try:
      return self._process.wait(timeout)
    except subprocess.TimeoutExpired:
      return None

  def send_signal(self, number: int) -> None:
    """Sends the launcher a signal."""
    self._process.send_signal(number)


@dataclasses.dataclass(frozen=True)
class Training:
  """What is trained, and how it is started.

  Attributes:
    config: The configuration.
    zygote: What starts one process.
    processes: The number of processes that train together.
    losses: Where to note what reaches the disk, if the power is to fail; None: nowhere.
  """

  config: Path
  zygote: Zygote
  processes: int = 1
  losses: Path | None = None

  def start(self, workdir: Path) -> Life | Launched:
    """Starts a training."""
    arguments = ["--config", str(self.config), "--workdir", str(workdir)]
    output = workdir.with_name(f"{workdir.name}.out")
    if self.processes > 1:
      return Launched(arguments, output, self.processes)
    if self.losses is not None:
      power_loss.begin(self.losses, workdir)
    return self.zygote.start(arguments, output, self.losses)


def members(session: int) -> dict[int, str]:
  """Returns the command lines of the processes of a session that still run, by their ids."""
  found: dict[int, str] = {}
  for path in Path("/proc").glob("[0-9]*"):
    try:
      fields = (path / "stat").read_text().rpartition(")")[2].split()
      if int(fields[3]) == session and fields[0] != "Z":
        found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
      continue
  return found


def processor_time(life: Life | Launched) -> float:
  """Returns the processor time, in seconds, of the processes that still run, and of their children that have ended."""
  found = 0
  for pid in members(life.pid) if isinstance(life, Launched) else [life.pid]:
    with contextlib.suppress(OSError):
      fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
      found += sum(int(field) for field in fields[11:15])
  return found / os.sysconf("SC_CLK_TCK")


def _interrupt(life: Life | Launched, number: int, rng: random.Random) -> None:
  """Sends a signal: SIGKILL to all, any other to the first process; of several processes, SIGKILL to one."""
  if isinstance(life, Launched) and number == signal.SIGKILL:
    # Each is a parent that watches, and a child that computes; any of them may be the one that is killed.
    trains = [pid for pid, line in members(life.pid).items() if "stajax.train --distributed" in line]
    os.kill(rng.choice(sorted(trains)), number)
  elif number == signal.SIGKILL:
    os.killpg(life.pid, number)
  else:
    life.send_signal(number)


def live(training: Training, workdir: Path, number: int, seconds: float, rng: random.Random) -> Interruption | None:
  """Lets a training work for some seconds after it has taken its folder; returns None if it ended by itself before.

  Raises:
    AssertionError: It ended by itself with an error.
  """
  began = time.time()
  life = training.start(workdir)
  lock, deadline = workdir / LOCK, time.monotonic() + _LONGEST_LIFE
  while life.poll() is None and not _is_new(lock, began) and time.monotonic() < deadline:
    time.sleep(0.01)
  before = processor_time(life)
  while life.poll() is None and processor_time(life) - before < seconds:
    time.sleep(0.1)
  if life.poll() is not None:
    assert life.poll() == 0, life.output.read_text()[-3000:]
    return None
  before = processor_time(life)
  _interrupt(life, number, rng)
  asked = time.monotonic()
  life.wait(5 * LONGEST_END)
  took = time.monotonic() - asked
  left = _still_there(life.pid)
  for pid in left:
    os.kill(pid, signal.SIGKILL)
  code = life.wait(60)
  assert code is not None
  output = life.output.read_text(errors="replace").splitlines()
  stage = next((line.split(": ")[-1].strip() for line in reversed(output) if line.startswith("stage ")), "before any")
  processor = took if isinstance(life, Launched) else life.processor - before
  said = [line for line in output if not _is_progress(line)]
  return Interruption(stage, code, round(took, 1), round(processor, 1), said, left)


def _is_new(lock: Path, since: float) -> bool:
  try:
    return lock.stat().st_mtime >= since
  except OSError:
    return False


def _still_there(session: int) -> list[int]:
  """Returns the processes of a session that have not ended two seconds later."""
  deadline = time.monotonic() + 2
  while (left := list(members(session))) and time.monotonic() < deadline:
    time.sleep(0.05)
  return left


def _is_progress(line: str) -> bool:
  words = ("stage ", "train ", "checking ", "rendering ", "scoring ", "report: ", "features ")
  return not line.strip() or line.startswith(words) or ": starts from " in line or "| " in line or "%" in line


def run_chains(
  training: Training, reference: Path, folder: Path, count: int, span: float, number: int, seed: int = 0
) -> list[Interruption]:
  """Interrupts trainings until there were so many interruptions; each training is finished and compared.

  Args:
    training: What is trained.
    reference: The work folder of a training that was left alone.
    folder: Where the trainings write.
    count: The number of interruptions.
    span: The longest life in seconds of processor time.
    number: The signal.
    seed: The seed of all random numbers.

  Raises:
    AssertionError: See `check`, or an interruption did not end all processes in time.
  """
  rng, made = random.Random(seed), list[Interruption]()
  while len(made) < count:
    workdir, before = folder / f"chain-{seed}-{len(made)}", len(made)
    with Reader(workdir) as reader:
      while True:
        found = live(training, workdir, number, rng.uniform(0, span) if len(made) < count else _LONGEST_LIFE, rng)
        if found is None:
          break
        made.append(found)
        print(f"{len(made)} of {count}: {found}", flush=True)
        assert not found.left and min(found.seconds, found.processor) < LONGEST_END, found
        if training.losses is not None:
          print("lost:", *power_loss.lose(training.losses, rng), sep="\n  ", flush=True)
    check(workdir, reference, reader if training.losses is None else None)
    print(f"{workdir.name}: {len(made) - before} interruptions, {reader.polls} polls, equal to {reference}", flush=True)
    shutil.rmtree(workdir)
  return made


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command."""
  parser = argparse.ArgumentParser(description=__doc__)
  for name in ("config", "reference", "folder"):
    parser.add_argument(name, type=Path)
  parser.add_argument("--count", type=int, default=100)
  parser.add_argument("--span", type=float, default=16)
  parser.add_argument("--signal", default="KILL")
  parser.add_argument("--processes", type=int, default=1)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--lose", action="store_true", help="what was not synced before a kill may be lost")
  given = parser.parse_args(argv)
  number = signal.Signals[f"SIG{given.signal}"]
  given.folder.mkdir(parents=True, exist_ok=True)
  losses = (given.folder / f"disk-{given.seed}").absolute() if given.lose else None
  with Zygote() as zygote:
    training = Training(given.config, zygote, given.processes, losses)
    if not given.reference.exists():
      assert training.start(given.reference).wait(_LONGEST_LIFE) == 0
    made = run_chains(training, given.reference, given.folder, given.count, given.span, number, given.seed)
  print(f"{len(made)} interruptions by {number.name}, all trainings equal")
  print("exit codes", dict(Counter(found.code for found in made)))
  print("longest end", max(found.seconds for found in made), max(found.processor for found in made))
  print("stages", dict(Counter(found.stage for found in made)))


if __name__ == "__main__":
  main()
