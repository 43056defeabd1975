"""What holds for the work folder of a training, while it is written and when it is finished.

`helpers.interrupted` interrupts trainings, and checks their folders by this.
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from stajax.files import manifest

LOCK = ".train.lock"
"""The name of the file that says that somebody writes in a work folder."""
_WITH_TIMES = ("log.jsonl", "done.json", "index.html")
"""Names of files that say how long something took."""


class Reader:
  """Polls a folder as another program does; a context manager that collects what it should not have seen.

  A file that has its final name may neither change afterwards nor be incomplete. Logs, to which lines are added, are
  not looked at.

  Attributes:
    faults: A line for each file that changed under its name, or is no JSON or manifest.
    seen: The SHA-256 that files had when they were first seen, by name.
  """

  def __init__(self, folder: Path) -> None:
    self.faults: list[str] = []
    self.seen: dict[str, set[str]] = {}
    self._folder, self._known = folder, dict[str, tuple[int, int, int]]()
    self._ends = threading.Event()
    self._thread = threading.Thread(target=self._poll, daemon=True)
    self.polls = 0

  def __enter__(self) -> "Reader":
    self._thread.start()
    return self

  def __exit__(self, *_: object) -> None:
    self._ends.set()
    self._thread.join()

  def _poll(self) -> None:
    took = 0.0
    while not self._ends.wait(max(0.03, 5 * took)):  # not more than a sixth of a core
      began = time.monotonic()
      self.polls += 1
      for path, status in _finished_files(self._folder):
        now, known = (status.st_ino, status.st_size, status.st_mtime_ns), self._known.get(path)
        # Only the last file of a name is compared, since the number of one that was replaced is given away again.
        if known is None or known[0] != now[0]:
          self._look(path, status.st_ino)
        elif known != now:
          self.faults.append(f"{path}: changed under its name, {known} → {now}")
        self._known[path] = now
      took = time.monotonic() - began

  def _look(self, path: str, inode: int) -> None:
    try:
      with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_ino != inode:
          return  # it was replaced, and is looked at next time
        content = file.read()
    except OSError:
      return  # it was removed
    self.seen.setdefault(os.path.relpath(path, self._folder), set()).add(hashlib.sha256(content).hexdigest())
    if path.endswith(".json"):
      try:
        found = json.loads(content)
        if path.endswith("done.json") and found.pop("digest") != manifest.sha256_of_json(found):
          raise ValueError("not the digest in it")
      except (ValueError, KeyError) as error:
        self.faults.append(f"{path}: {error!r} in {content[:200]!r}")


def _finished_files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
  """Yields the files with final names; hidden ones, those of a checkpoint that is being written, and logs have none."""
  stack = [str(folder)]
  while stack:
    try:
      entries = list(os.scandir(stack.pop()))
    except OSError:
      continue
    for entry in entries:
      if entry.name.startswith(".") or "orbax-checkpoint-tmp" in entry.name or entry.name == "tensorboard":
        continue
      try:
        if entry.is_dir(follow_symlinks=False):
          stack.append(entry.path)
        elif entry.name != "log.jsonl":
          yield entry.path, os.stat(entry.path)
      except OSError:
        continue


def digests(workdir: Path) -> dict[str, str]:
  """Returns the SHA-256 of everything that has to be equal, by name: what stages say they wrote, and what is there."""
  found: dict[str, str] = {}
  for done in sorted(workdir.glob("stages/*/done.json")):
    _, written = manifest.read_manifest(done)
    found |= {f"{done.parent.name}: {name}": sha256 for name, sha256 in written.items() if _is_fixed(name)}
    there = manifest.digests(workdir, [workdir / name for name in written if _is_fixed(name)])
    assert there == {name: sha256 for name, sha256 in written.items() if _is_fixed(name)}, done
    if (log := done.with_name("log.jsonl")).exists():
      lines = [json.loads(line) for line in log.read_text().splitlines()]
      found[f"{done.parent.name}: log"] = json.dumps([
        {key: value for key, value in line.items() if key != "examples_per_second"} for line in lines
      ])  # fmt: skip
  return found


def _is_fixed(name: str) -> bool:
  return Path(name).name not in _WITH_TIMES


def check(workdir: Path, reference: Path, reader: Reader | None) -> None:
  """Compares a finished training with one that was left alone, and what a reader has seen with both.

  Raises:
    AssertionError: They differ, something half done is left, or the reader saw a partial file.
  """
  found, expected = digests(workdir), digests(reference)
  different = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
  assert not different, different
  assert len(list(workdir.glob("stages/*/done.json"))) == len(list(reference.glob("stages/*/done.json")))
  left = [path for path in workdir.rglob("*") if path.name.endswith((".partial", ".staging")) or path.name == LOCK]
  assert not left, left
  if reader is None:
    return
  assert not reader.faults, reader.faults[:5]
  names = {name.partition(": ")[2] for name in found}
  partial = {
    name for name in names & reader.seen.keys() if reader.seen[name] != {manifest.sha256_of_file(workdir / name)}
  }
  assert not partial, partial
