"""The tags of a tree's videos: a table beside the tree, or anywhere.

A tree in the STAViS layout has no tags. The file `clips.csv` in its root, or a table that a command names, gives them:

  database,video,tag
  AVAD,V11_News4,Male speech, man speaking     (quoted, as it has a comma)
  AVAD,V16_Guitar1,Acoustic guitar|Male singing

The column `database` may be missing where names are unique. Several tags are separated by `|`, or by spaces where no
category has one.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from stajax.files.names import csv_name
from stajax.prepare.listing import text_encoding

TABLE = "clips.csv"
"""The name of the table in the root of a tree."""

Tags = Mapping[str, tuple[int, ...]]
"""The category indices of each video's tags, by `DATABASE/VIDEO`, or by `VIDEO` where the table has no databases."""


class TagTableError(ValueError):
  """A table of tags that cannot be used; one line that names the file."""


def read_table(path: Path) -> dict[str, str]:
  """Reads a table of tags: {`DATABASE/VIDEO` or `VIDEO`: the text of its tags}.

  Raises:
    TagTableError: The file is missing or in another form.
  """
  try:
    with path.open(newline="", encoding=text_encoding(path)) as file:
      reader = csv.DictReader(file)
      if not {"video", "tag"} <= set(reader.fieldnames or ()):
        raise TagTableError(f"{path}: found columns {reader.fieldnames}, expected video and tag (and database)")
      rows = [{key: csv_name(row.get(key) or "") for key in ("database", "video", "tag")} for row in reader]
      return {"/".join(filter(None, (row["database"], row["video"]))): row["tag"] for row in rows}
  except (OSError, UnicodeError, csv.Error) as error:
    raise TagTableError(f"{path}: not a table ({error})") from None


def read_tags(root: Path, categories: Sequence[str], table: Path | None = None) -> Tags:
  """Reads the true tags of a tree's videos as category indices.

  A video is left out if one of its tags is not a category. Without a table, no video has tags.

  Args:
    root: The tree.
    categories: The names of the categories.
    table: The table; None for `clips.csv` in the tree, if it is there.

  Raises:
    TagTableError: The table is missing or in another form.
  """
  path = Path(root) / TABLE if table is None else table
  if table is None and not path.is_file():
    return {}
  numbers = {category: index for index, category in enumerate(categories)}
  tags: dict[str, tuple[int, ...]] = {}
  for video, text in read_table(path).items():
    parts = split_tags(text, numbers)
    if parts and all(part in numbers for part in parts):
      tags[video] = tuple(dict.fromkeys(numbers[part] for part in parts))
  return tags


def split_tags(text: str, categories: Mapping[str, int]) -> list[str]:
  """Returns the tags in a text; one that is a category as a whole is one tag."""
  if text in categories:
    return [text]
  return [part.strip() for part in text.split("|") if part.strip()] if "|" in text else text.split()


def tags_of(tags: Tags, database: str, video: str) -> tuple[int, ...] | None:
  """Returns the tags of a video; None if it has none."""
  return tags.get(f"{database}/{video}", tags.get(video))
