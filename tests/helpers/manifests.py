"""Changes of model folders and work folders that are meant, so that their manifests say what is there."""

from pathlib import Path
from typing import Any

from stajax import files


def edit(path: Path, **changes: Any) -> None:
  """Changes what a manifest says; None removes a key."""
  about, digests = files.read_manifest(path)
  about |= changes
  files.write_manifest(path, {key: value for key, value in about.items() if value is not None}, digests)


def reseal(path: Path, folder: Path | None = None) -> None:
  """Lets a manifest name the files that are there now, of those that it named; `folder` is where their names begin."""
  about, digests = files.read_manifest(path)
  folder = folder or path.parent
  files.write_manifest(path, about, files.digests(folder, [folder / name for name in digests]))
