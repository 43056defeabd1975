"""AVE (Tian et al. 2018): clips of ten seconds, each with an audio-visual event of one of 28 categories.

AVE_Dataset/AVE/<video>.mp4
AVE_Dataset/Annotations.txt                 Category&VideoID&Quality&StartTime&EndTime
AVE_Dataset/{trainSet,valSet,testSet}.txt   the same rows
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stajax.prepare.layouts.tagged import PARTS, MediaIndex, Row, find_clips, join_rows
from stajax.prepare.listing import (
  Listing,
  ListingError,
  Remark,
  check_category,
  check_file_name,
  check_folder,
  read_lines,
  resolve_inside,
)

# In the order of first appearance in Annotations.txt, as in the authors' features and labels.
CATEGORIES = (
  *("Church bell", "Male speech, man speaking", "Bark", "Fixed-wing aircraft, airplane", "Race car, auto racing"),
  *("Female speech, woman speaking", "Helicopter", "Violin, fiddle", "Flute", "Ukulele", "Frying (food)", "Truck"),
  *("Shofar", "Motorcycle", "Acoustic guitar", "Train horn", "Clock", "Banjo", "Goat", "Baby cry, infant cry", "Bus"),
  *("Chainsaw", "Cat", "Horse", "Toilet flush", "Rodents, rats, mice", "Accordion", "Mandolin"),
)
ANNOTATIONS = "Annotations.txt"
SPLITS = {"train": "trainSet.txt", "val": "valSet.txt", "test": "testSet.txt"}
FORM = "Category&VideoID&Quality&StartTime&EndTime"


@dataclass(frozen=True)
class _Annotation:
  """A row of a list.

  Attributes:
    category: Its category.
    video: Its video.
    at: The file and the line.
    dropped: The reason why it cannot be used, if there is one.
    doubt: What is odd about it, although it is used.
  """

  category: str
  video: str
  at: str
  dropped: str = ""
  doubt: str = ""


def read_ave(root: Path, videos: Path | None = None) -> Listing:
  """Lists AVE: one clip for each video, with one tag (46 videos have two), in the parts of the split files.

  Rows whose event has no length are used, as all 4,143 sequences of the paper (§6.1) are: the method reads their tags
  and no times. A video in two parts belongs to the held-out one with all its tags. Without split files everything is
  in `train`.

  Args:
    root: AVE_Dataset, or the folder above it.
    videos: The folder of the media files, if they are not in `root/AVE` or `root`.

  Raises:
    ListingError: There is no list, or one has an unknown category or a name that is a path.
  """
  root = Path(root)
  base = _base(root)
  remarks: list[Remark] = []
  if base != root:
    remarks.append(Remark("doubtful", base.name, "this folder is read, not the one above it"))
  index = MediaIndex(_media_folder(base, videos, remarks))
  annotations = _read(base / ANNOTATIONS)
  splits = {part: _read(base / name) for part, name in SPLITS.items()}
  if annotations is None:
    remarks.append(Remark("missing", ANNOTATIONS, "the rows of the split files are taken alone"))
  lists = [entries for entries in (annotations, *splits.values()) if entries is not None]
  # Split files repeat the rows of Annotations.txt, and one remark about a row is enough.
  for entries in lists if annotations is None else [annotations]:
    remarks += [Remark("dropped", entry.at, entry.dropped) for entry in entries if entry.dropped]
    remarks += [Remark("doubtful", entry.at, entry.doubt) for entry in entries if entry.doubt]
  clips, doubts = join_rows(_rows(annotations, splits, remarks))
  items, missing = find_clips(clips, index, lambda name: [name], root)
  for entry in (entry for entries in lists for entry in entries):
    index.take([entry.video])  # a file that a row names is not spare, even if the row cannot be used
  remarks += [*doubts, *missing, *index.spare(root, "the lists")]
  return Listing("ave", root, CATEGORIES, tuple(items), tuple(remarks))


def _base(root: Path) -> Path:
  lists = (ANNOTATIONS, *SPLITS.values())
  check_folder(root, "AVE_Dataset")
  for base in (root, root / "AVE_Dataset", root / "data"):
    if any((base / name).is_file() for name in lists):
      return root if base == root else resolve_inside(root, base.name)
  hint = "; they are in the folder above, give that" if any((root.parent / name).is_file() for name in lists) else ""
  raise ListingError(f"{root}: has none of {', '.join(lists)}, nor has AVE_Dataset in it{hint}")


def _media_folder(base: Path, videos: Path | None, remarks: list[Remark]) -> Path:
  if videos is not None:
    check_folder(videos, "the one with <VideoID>.mp4")
    return videos
  if (base / "AVE").is_dir():
    return resolve_inside(base, "AVE")
  remarks.append(Remark("doubtful", "AVE", "no such folder: media files are looked for beside the lists"))
  return base


def _read(path: Path) -> list[_Annotation] | None:
  """Returns the rows of a file, or None if the file is missing."""
  if not path.exists():
    return None
  found = []
  for number, line in enumerate(read_lines(path), start=1):
    at = f"{path.name}, line {number}"
    fields = [field.strip() for field in line.split("&")]  # not at commas, because names of categories contain commas
    if len(fields) != 5 or not (_is_integer(fields[3]) and _is_integer(fields[4])):
      if line.strip() and number > 1:  # the archive's file has a header line, the repository's does not
        found.append(_Annotation("", "", at, f"found {line.strip()[:80]!r}, expected {FORM}"))
      continue
    category = check_category(fields[0], CATEGORIES, f"{path}, line {number}")
    video = check_file_name(fields[1], f"{path}, line {number}")
    doubt = ""
    if int(fields[3]) >= int(fields[4]):
      doubt = f"{video} is {category!r} from {fields[3]} to {fields[4]} s, which has no length; its tag is used"
    found.append(_Annotation(category, video, at, doubt=doubt))
  return found


def _is_integer(text: str) -> bool:
  return text.isascii() and text.removeprefix("-").isdigit()


def _rows(
  annotations: Sequence[_Annotation] | None, splits: dict[str, list[_Annotation] | None], remarks: list[Remark]
) -> list[Row]:
  """Returns the rows of the split files, and the rows of Annotations.txt that they omit for their videos."""
  usable = [entry for entry in annotations or () if not entry.dropped]
  if not any(entries is not None for entries in splits.values()):
    remarks.append(Remark("doubtful", ", ".join(SPLITS.values()), "no split file is there: all is in train"))
    return [Row(entry.video, entry.category, "train", entry.at) for entry in usable]
  rows: list[Row] = []
  for part in PARTS:
    if splits[part] is None:
      remarks.append(Remark("missing", SPLITS[part], "this split file is not there"))
    rows += [Row(entry.video, entry.category, part, entry.at) for entry in splits[part] or () if not entry.dropped]
  return rows if annotations is None else rows + _missing_rows(usable, rows, remarks)


def _missing_rows(usable: Sequence[_Annotation], rows: Sequence[Row], remarks: list[Remark]) -> list[Row]:
  """Compares the rows of the split files with those of Annotations.txt; returns the rows that they omit."""
  known = {(entry.video, entry.category) for entry in usable}
  for row in rows:
    if (row.clip, row.tag) not in known:
      remarks.append(Remark("doubtful", row.at, f"{row.clip} is not {row.tag!r} in {ANNOTATIONS}"))
  listed, parts = {(row.clip, row.tag) for row in rows}, {row.clip: row.part for row in reversed(rows)}
  missing = []
  for entry in usable:
    if entry.video not in parts:
      remarks.append(Remark("dropped", entry.at, f"{entry.video} is in no split file"))
    elif (entry.video, entry.category) not in listed:
      reason = f"{entry.video} is {entry.category!r} here, but not in its split file: it is both"
      remarks.append(Remark("doubtful", entry.at, reason))
      missing.append(Row(entry.video, entry.category, parts[entry.video], entry.at))
  return missing
