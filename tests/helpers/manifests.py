"""Changes of model folders and work folders that are meant, so that their manifests say what is there."""

from pathlib import Path
from typing import Any

from stajax.files import manifest


def edit(path: Path, **changes: Any) -> None:
  """Changes what a manifest says; None removes a key."""
  about, digests = manifest.read_manifest(path)
  about |= changes
  manifest.write_manifest(path, {key: value for key, value in about.items() if value is not None}, digests)


def reseal(path: Path, folder: Path | None = None) -> None:
  """Lets a manifest name the files that are there now, of those that it named; `folder` is where their names begin."""
  about, digests = manifest.read_manifest(path)
  folder = folder or path.parent
  manifest.write_manifest(path, about, manifest.digests(folder, [folder / name for name in digests]))
