"""Imitates what a disk holds after the power has failed: what was not synced may be there, half there, or not.

`begin` notes that all of a folder is on the disk, `record` notes in a process what it syncs from then on, and `lose`
changes the folder, after that process was killed, into one that a disk could hold. What native libraries sync is not
seen, so that less is on the disk than would be. A name, too, is only on the disk once its folder was synced: it may be
missing, or still be that of the file which was replaced or removed.
"""

import json
import os
import random
import shutil
import stat
from pathlib import Path
from typing import Any

_LOG = "synced.jsonl"
_REPLACED = "replaced"


def begin(place: Path, folder: Path) -> None:
  """Notes in a new folder `place`, on the same disk, that all of `folder` is on the disk."""
  shutil.rmtree(place, ignore_errors=True)
  (place / _REPLACED).mkdir(parents=True)
  with (place / _LOG).open("w") as file:
    print(json.dumps({"folder": str(folder.absolute())}), file=file)
    for path in [folder.parent, folder, *folder.rglob("*")] if folder.is_dir() else [folder.parent]:
      print(json.dumps(_describe(str(path.absolute()))), file=file)


def _describe(path: str) -> dict[str, Any]:
  """Returns what is on the disk once a file or folder is synced."""
  status = os.stat(path)
  if stat.S_ISDIR(status.st_mode):
    return {"inode": status.st_ino, "names": {entry.name: entry.inode() for entry in os.scandir(path)}}
  return {"inode": status.st_ino, "content": [status.st_mtime_ns, status.st_size]}


def record(place: Path) -> None:
  """Notes from now on what this process syncs, and keeps the files that it replaces or removes."""
  folder = json.loads((place / _LOG).read_text().splitlines()[0])["folder"]
  log = os.open(place / _LOG, os.O_WRONLY | os.O_APPEND)
  real_sync, real_replace, real_rename, real_unlink, real_mkdir = os.fsync, os.replace, os.rename, os.unlink, os.mkdir

  def note(about: dict[str, Any]) -> None:
    os.write(log, (json.dumps(about) + "\n").encode())

  def sync(file: Any) -> None:
    real_sync(file)
    path = os.readlink(f"/proc/self/fd/{file if isinstance(file, int) else file.fileno()}")
    if path.startswith((folder, os.path.dirname(folder))):
      note(_describe(path))

  def keep(path: Any) -> None:
    path = os.path.abspath(os.fspath(path))
    if path.startswith(folder) and os.path.isfile(path):
      status = os.stat(path)
      kept = str(place / _REPLACED / str(status.st_ino))
      if not os.path.exists(kept):
        os.link(path, kept)

  def replace(source: Any, target: Any, **options: Any) -> None:
    keep(target)
    real_replace(source, target, **options)

  def rename(source: Any, target: Any, **options: Any) -> None:
    keep(target)
    real_rename(source, target, **options)

  def unlink(path: Any, **options: Any) -> None:
    if not options:  # a whole tree is removed by other means
      keep(path)
    real_unlink(path, **options)

  def mkdir(path: Any, *mode: Any, **options: Any) -> None:
    real_mkdir(path, *mode, **options)
    if not options and os.path.abspath(os.fspath(path)).startswith(folder):
      note({"inode": os.stat(path).st_ino, "names": {}})  # its number may have been that of another folder

  os.fsync, os.replace, os.rename, os.unlink, os.remove, os.mkdir = sync, replace, rename, unlink, unlink, mkdir


def lose(place: Path, rng: random.Random) -> list[str]:
  """Changes the folder into one that the disk could hold; returns a line for each thing that was lost."""
  lines = [json.loads(line) for line in (place / _LOG).read_text().splitlines()]
  folder = Path(lines[0]["folder"])
  names = {line["inode"]: line["names"] for line in lines[1:] if "names" in line}
  contents = {line["inode"]: tuple(line["content"]) for line in lines[1:] if "content" in line}
  lost: list[str] = []

  def visit(parent: Path, only: str | None = None) -> None:
    on_disk = names.get(parent.stat().st_ino, {})
    present = {entry.name: entry for entry in os.scandir(parent)}
    for name in sorted({*on_disk, *present} if only is None else {only}):
      path, old = parent / name, place / _REPLACED / str(on_disk.get(name, ""))
      entry, has_old = present.get(name), name in on_disk and old.is_file()
      is_certain = entry is None or on_disk.get(name) == entry.inode()
      if entry is None and has_old and rng.random() < 0.5:
        os.link(old, path)
        lost.append(f"{path}: is there again")
      elif not is_certain and rng.random() < 0.5:
        _remove(path)
        if has_old:
          os.link(old, path)
        lost.append(f"{path}: {'is the old one' if has_old else 'has no name'}")
      elif entry is not None and entry.is_dir(follow_symlinks=False):
        visit(path)
      elif entry is not None and contents.get(entry.inode()) != _describe_content(path):
        lost.extend(f"{path}: {how}" for how in _spoil(path, rng, contents.get(entry.inode(), (0, 0))[1]))

  if folder.exists():
    visit(folder.parent, folder.name)
  return lost


def _describe_content(path: Path) -> tuple[int, int]:
  status = path.stat()
  return status.st_mtime_ns, status.st_size


def _remove(path: Path) -> None:
  shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _spoil(path: Path, rng: random.Random, synced: int) -> list[str]:
  """Leaves of a file that was not synced all, a part, zeros or nothing, and what of its beginning was synced.

  Returns:
    What is left, unless it is all.
  """
  size, fate = path.stat().st_size, rng.choice(("all", "part", "zeros", "nothing"))
  if fate == "all" or size == 0:
    return []
  content = path.read_bytes()
  end = max(rng.randrange(size) if fate == "part" else 0, min(synced, size))  # files only grow
  path.unlink()  # it may be linked elsewhere
  path.write_bytes(content[:end] + (bytes(size - end) if fate == "zeros" else b""))
  return [f"{end} of {size} bytes" if fate == "part" else f"{fate} of {size} bytes"]
