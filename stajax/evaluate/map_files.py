"""Finds and reads saliency maps made elsewhere, as image or NumPy files. It needs no TensorFlow.

There are two layouts, in which <db> is the database's name or STAViS's short one:

  DIR/split{1,2,3}_results/<db>/<video>/pred_sal_000001.jpg    one set of maps for each split's test list
  DIR/<db>/<video>/…  or  DIR/<video>/…                        one set of maps for all lists

The last digits of a file's name are its number. Files are numbered from 1, like the frames. The formats are png,
npy and jpg.
"""

import re
from pathlib import Path

import numpy as np

from stajax.eyetracking import MAX_PIXELS, StavisError, open_image
from stajax.files import numbered_files
from stajax.screen import counted

SHORT_NAMES = {  # STAViS's
  "AVAD": "avad",
  "Coutrot_db1": "coutrot1",
  "Coutrot_db2": "coutrot2",
  "DIEM": "diem",
  "SumMe": "summe",
  "ETMD_av": "etmd",
}
# STANet writes maps as .png, and coloured overlays as .jpg beside them, so png comes first.
SUFFIXES = (".png", ".npy", ".jpg", ".jpeg")


def find_splits(root: Path) -> dict[int, Path]:
  """Returns the folders of maps by split: {1: DIR/split1_results, …}, or {0: DIR} for maps that serve every list.

  Raises:
    StavisError: There is no such folder.
  """
  root = Path(root)
  if not root.is_dir():
    raise StavisError(f"{root}: no such folder of maps")
  splits = {
    int(match[1]): path
    for path in sorted(root.iterdir())
    if path.is_dir() and (match := re.fullmatch(r"split(\d+)_results", path.name))
  }
  return splits or {0: root}


def find_maps(folder: Path, num_frames: int) -> tuple[dict[int, Path], list[str]]:
  """Returns the files of one video's maps by 0-based frame, and notes; files past `num_frames` are left out.

  Raises:
    StavisError: The folder has no map, a file numbered 0, or two files of one kind for one frame.
  """
  numbered = numbered_files(folder, SUFFIXES)
  if not numbered:
    raise StavisError(f"{folder}: no numbered .png, .jpg or .npy file")
  if 0 in numbered:
    raise StavisError(f"{numbered[0][0]}: files are numbered from 1, like the frames")
  files: dict[int, Path] = {}
  shadowed: set[str] = set()
  for number, paths in numbered.items():
    paths = sorted(paths, key=lambda path: SUFFIXES.index(path.suffix.lower()))
    shadowed |= {path.suffix for path in paths[1:]}
    if len(paths) > 1 and paths[0].suffix == paths[1].suffix:
      raise StavisError(f"{paths[1]}: a second map for frame {number}, beside {paths[0].name}")
    if number <= num_frames:
      files[number - 1] = paths[0]
  notes = []
  if shadowed:
    first = next(iter(files.values())) if files else folder
    notes.append(
      f"{folder}: {first.suffix} files are read; the {', '.join(sorted(shadowed))} files beside them are not"
    )
  ignored = sum(number > num_frames for number in numbered)
  if ignored:
    notes.append(f"{folder}: {counted(ignored, 'file')} past frame {num_frames} ignored")
  return files, notes


def folder_names_of(database: str) -> list[str]:
  """Returns the names that a database's folder may have: its own, and STAViS's short one."""
  return list(dict.fromkeys([database, SHORT_NAMES.get(database, database.lower())]))


def read_map(path: Path) -> np.ndarray:
  """Reads a map (h, w): uint8 from images of 8 bits, any real numbers from others and from npy files.

  Raises:
    StavisError: The file is damaged, too large, in colour, transparent, or not two-dimensional.
  """
  try:
    return _read_array(path) if path.suffix.lower() == ".npy" else _read_image(path)
  except StavisError:
    raise
  except Exception as error:  # Pillow and NumPy raise many kinds on damaged files
    message = " ".join(str(error).split())[:200] or type(error).__name__
    raise StavisError(f"{path}: cannot be read as a map: {message}") from error


def _read_array(path: Path) -> np.ndarray:
  with open(path, "rb") as file:
    if file.read(6) != b"\x93NUMPY":  # else NumPy advises to unpickle it
      raise StavisError(f"{path}: not a file of numpy.save")
  # Mapped, so that a header that promises too much fails instead of taking memory.
  values = np.load(path, mmap_mode="r", allow_pickle=False)
  if values.ndim != 2 or not 0 < values.size <= MAX_PIXELS or values.dtype.kind not in "buif":
    expected = f"expected real numbers (h, w), at most {MAX_PIXELS} pixels"
    raise StavisError(f"{path}: found {values.dtype} {values.shape}, {expected}")
  return np.array(values)


def _read_image(path: Path) -> np.ndarray:
  with open_image(path) as image:
    if image.has_transparency_data and (np.asarray(image.convert("RGBA"))[..., 3] < 255).any():
      raise StavisError(f"{path}: some pixels are transparent, expected an opaque grey map")
    if image.mode in ("L", "1", "LA"):
      return np.asarray(image.convert("L"))
    if image.mode.startswith(("I", "F")):  # 16 bits and more
      return np.asarray(image, np.float64)
    colours = np.asarray(image.convert("RGB"))
  if (colours != colours[..., :1]).any():
    raise StavisError(f"{path}: a colour image, expected a grey map (is it an overlay?)")
  return np.ascontiguousarray(colours[..., 0])
