"""Names of videos that are spelled in two ways: accents may be characters of their own (NFD) or not (NFC)."""

import os
from pathlib import Path
from unicodedata import normalize


def find_name(folder: Path, name: str) -> str:
  """Returns how a folder spells the name of a file: macOS writes NFD where lists of names have NFC.

  The name itself is returned if the folder has it, has no other spelling of it, or does not exist.
  """
  if name.isascii() or (folder / name).exists() or not folder.is_dir():
    return name
  return next(
    (found for found in sorted(os.listdir(folder)) if normalize("NFC", found) == normalize("NFC", name)), name
  )
