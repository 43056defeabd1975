"""Off-the-shelf taggers in place of own ones (paper §3.3): what they hear, as confidences in the tags of the clips.

A tagger has classes of its own. A table with rows `tag,class` says which of them are a tag: several rows for a tag, or
for a class, are fine. A row without a class says that the tag has none; one without a tag names a class that is no tag
of these clips, but louder than it the tag is not heard: `,Speech` where people talk over the clips. Without such rows
only tags are compared, as the own taggers do.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from stajax import networks
from stajax.config import ConfigError
from stajax.data.class_scores import ClassScores
from stajax.data.records import Records
from stajax.files import sha256_of_bytes, write_text
from stajax.inference.dense import make_tagger
from stajax.nets.tagger import Tagger
from stajax.prepare.layouts.vggsound import NUM_CATEGORIES, read_classes
from stajax.prepare.listing import ListingError, text_lines
from stajax.train.workdir import NOT_JUDGED, Run
from stajax.weights import convert, store

TABLE = "tags.csv"
HEADER = ("tag", "class")
QUIET = "Silence"  # a class of YAMNet
_AVERAGE = 512  # features of VGGSound's network with average pooling; NetVLAD has 16 times as many


@dataclass(frozen=True)
class Ears:
  """A tagger and its table.

  Attributes:
    hear: of a training clip's index, the confidences (n, c + 1) float32 in every tag and in the other sounds.
    covered: (c,) bool, whether the tagger has a class for a tag.
    judged: (C,) bool, whether it has for every tag of a clip.
    made_with: what the labels depend on, JSON values.
    text: of the table.
    advice: one line on the tags that are not covered; empty where all are.
  """

  hear: Callable[[int], np.ndarray]
  covered: np.ndarray
  judged: np.ndarray
  made_with: dict[str, Any]
  text: str
  advice: str


def open_ears(run: Run) -> Ears:
  """The off-the-shelf tagger of a configuration; writes its table into the work folder where there is none.

  Raises:
    ConfigError: the table cannot be used, does not fit the tagger or the tags, or covers no clip.
    RecordError, WeightsError: what the tagger heard, or its weights, cannot be used.
  """
  hearing, records = run.config.hearing, run.records
  if hearing.kind == "yamnet":
    found = ClassScores.open(records.path)
    classes, combine, where = found.classes, np.maximum, found.path / "classes.txt"
    made_with = {"tagger": "yamnet", "sha256": found.sha256}

    def score(clip: int) -> np.ndarray:
      return found.of(records.names[clip], int(records.num_frames[clip]))
  else:
    classes, combine, where = _vggsound_classes(run), np.add, hearing.classes or "the data's categories"
    score, sha256 = _vggsound(run)
    made_with = {"tagger": "vggsound", "sha256": sha256}
  path = Path(hearing.mapping) if hearing.mapping else run.workdir / TABLE
  if not hearing.mapping:
    if jax.process_index() == 0 and not path.exists():
      write_table(path, guess(records.categories, classes))
    multihost_utils.sync_global_devices("table of tags")
  members, text = read_table(path, records.categories, classes)
  covered = np.array([len(member) > 0 for member in members[:-1]])
  judged = ~(records.tags[:, ~covered] > 0).any(axis=1)
  advice = _advice(path, where, records.categories, covered, judged)
  if not (judged & records.has_sound & (records.tags > 0).any(axis=1)).any():
    raise ConfigError(advice or f"{records.path}: no clip has a tag and sound")
  made_with["table"] = sha256_of_bytes(text.encode())
  return Ears(lambda clip: in_tags(score(clip), members, combine), covered, judged, made_with, text, advice)


def check(run: Run) -> None:
  """Looks at tagger and table before hours of training, and says which tags are not covered.

  Raises:
    ConfigError: as `open_ears`; or the table has changed since the switch's labels were begun with it.
    RecordError, WeightsError: as `open_ears`.
  """
  ears, used = open_ears(run), run.folder("tag_heard") / TABLE
  if used.is_file() and used.read_text(encoding="utf-8") != ears.text:
    path = run.config.hearing.mapping or run.workdir / TABLE
    raise ConfigError(f"{path}: has changed since the switch's labels were made with {used}; use another --workdir")
  if ears.advice and jax.process_index() == 0 and run.done("tag_heard") is None:
    print(ears.advice, file=sys.stderr)


def heard(confidences: np.ndarray, tags: Sequence[int], share: float) -> np.ndarray:
  """Whether a sound is of one of a clip's tags, (n,) bool: where a tag has at least `share` of the highest confidence.

  Args:
    confidences: (n, k) in every tag, and whatever else it is compared with.
    tags: of the clip; it need not have one.
  """
  own = confidences[:, list(tags)].max(axis=1, initial=0.0)
  return (own > 0) & (own >= share * confidences.max(axis=1))


def summary(ears: Ears, records: Records, values: np.ndarray) -> dict[str, Any]:
  """What the stage says that made the labels `values` (frames,): counts, also by tag, and all in a line."""
  frames = records.has_sound[records.clip_of_frame] & (values != NOT_JUDGED)
  tagged = records.tags[records.clip_of_frame] > 0
  missing = [tag for tag, known in zip(records.categories, ears.covered, strict=True) if not known]
  counts = {
    tag: [int(np.sum(values[frames & tagged[:, i]] == 1)), int(np.sum(frames & tagged[:, i]))]
    for i, tag in enumerate(records.categories)
    if ears.covered[i]
  }
  number = int(np.sum(values == 1))
  says = f"{ears.made_with['tagger']}: its tag is heard in {number} of {int(frames.sum())} frames with sound"
  return {
    "frames": len(values),
    "tag_heard": number,
    "judged": int(frames.sum()),
    "by_tag": counts,
    "not_covered": missing,
    "says": f"{says}; tags not covered: {', '.join(missing) or 'none'}",
  }


def in_tags(scores: np.ndarray, members: Sequence[np.ndarray], combine: np.ufunc) -> np.ndarray:
  """Scores of a tagger's classes as confidences in tags.

  Args:
    scores: (n, classes) in [0, 1].
    members: c + 1 arrays of class indices: of every tag, and of other sounds.
    combine: `np.add` where classes exclude each other (softmax): the sum is the probability that it is any of them.
      `np.maximum` where they do not (YAMNet's sigmoids): a bark is Dog, Bark and Bow-wow at once, and a sum would count
      it thrice, so that tags with many rows would win.

  Returns:
    (n, c + 1) float32; 0 for a tag that has no class.
  """
  columns = [combine.reduce(scores[:, member], axis=1) if len(member) else np.zeros(len(scores)) for member in members]
  return np.stack(columns, axis=1).astype(np.float32)


def guess(tags: Sequence[str], classes: Sequence[str]) -> list[tuple[str, str]]:
  """Rows for the classes that have a tag's name, whatever its case, plural and punctuation; without a class where none.

  Of a class such as "Violin, fiddle" or "Frying (food)" a part will do. Silence is another sound.
  """
  names = [(name, {_plain(name), *(_plain(_bare(part)) for part in (name, *name.split(",")))}) for name in classes]
  rows = []
  for tag in tags:
    found = [name for name, forms in names if forms & {_plain(tag), _plain(_bare(tag))} - {""}]
    rows += [(tag, name) for name in found or [""]]
  if QUIET in classes and QUIET not in dict((name, tag) for tag, name in rows):
    rows.append(("", QUIET))
  return rows


def _bare(name: str) -> str:
  return re.sub(r"\([^)]*\)", " ", name)


def _plain(name: str) -> str:
  """In small letters, without punctuation and the s of plurals."""
  return " ".join(re.sub(r"(?<=..[^s])s$", "", word) for word in re.findall(r"[^\W_]+", name.casefold()))


def write_table(path: Path, rows: Sequence[tuple[str, str]]) -> None:
  """Writes a table, atomically."""
  text = io.StringIO()
  csv.writer(text, lineterminator="\n").writerows([HEADER, *rows])
  write_text(path, text.getvalue())


def read_table(path: Path, tags: Sequence[str], classes: Sequence[str]) -> tuple[list[np.ndarray], str]:
  """Reads a table.

  Returns:
    Class indices of each tag, then of other sounds; and the text.

  Raises:
    ConfigError: it cannot be read, or a row is not one of a known tag and a known class; the line is named.
  """
  try:
    lines = text_lines(path)
  except ListingError as error:
    raise ConfigError(str(error)) from None
  members: list[set[int]] = [set() for _ in (*tags, "")]
  reader, is_first = csv.reader(lines, skipinitialspace=True), True
  try:
    for row in reader:
      fields = tuple(field.strip() for field in row)
      at = f"{path}, line {reader.line_num}"
      if is_first and fields != HEADER:
        raise ConfigError(f"{at}: found {','.join(fields)[:80]!r}, expected tag,class")
      if not is_first and any(fields):
        if len(fields) != 2:
          found = f"found {len(fields)} columns, expected tag,class"
          raise ConfigError(f"{at}: {found}; a name with a comma is put in double quotes")
        tag = _known(fields[0], tags, f"{at}: {{!r}} is not a tag of the clips") if fields[0] else -1
        if fields[1]:
          members[tag].add(_known(fields[1], classes, f"{at}: {{!r}} is not a class of the tagger"))
      is_first = False
  except csv.Error as error:
    raise ConfigError(f"{path}, line {reader.line_num}: {error}") from None
  if is_first:
    raise ConfigError(f"{path}: is empty, expected tag,class")
  return [np.array(sorted(member), np.int64) for member in members], "\n".join(lines) + "\n"


def _known(name: str, names: Sequence[str], message: str) -> int:
  if name in names:
    return names.index(name)
  near = difflib.get_close_matches(name, names, n=1, cutoff=0)
  raise ConfigError(f"{message.format(name[:80])}, the nearest is {near[0]!r}")


def _advice(path: Path, where: Path | str, tags: Sequence[str], covered: np.ndarray, judged: np.ndarray) -> str:
  if covered.all():
    return ""
  names = ", ".join(tag for tag, known in zip(tags, covered, strict=True) if not known)
  clips = f"{int(np.sum(~judged))} of {len(judged)} clips have one"
  what = "they teach the audio switch nothing, and are heard wherever they have sound"
  return f"{path}: tags not covered: {names} ({clips}; {what}). Add rows tag,class to it; for the classes see {where}"


def _vggsound_classes(run: Run) -> tuple[str, ...]:
  """The head's classes in its order: sorted."""
  path, categories = run.config.hearing.classes, run.records.categories
  try:
    classes = categories if path is None else tuple(read_classes(Path(path)))
  except ListingError as error:
    raise ConfigError(str(error)) from None
  if len(classes) != NUM_CATEGORIES or list(classes) != sorted(classes):
    found = f"{path or run.records.path}: {len(classes)} categories"
    raise ConfigError(f"{found}, expected VGGSound's {NUM_CATEGORIES}: set hearing.classes to its stat.csv")
  return classes


def _vggsound(run: Run) -> tuple[Callable[[int], np.ndarray], str]:
  """VGGSound's network with its own head: the probabilities (n, 309) in a training clip; and the file's SHA-256."""
  path = Path(run.config.hearing.weights)
  found = convert.read(path)
  head = found.arrays.get("params/classify/kernel")
  # Both released checkpoints will do; the number of features tells them apart.
  pooling = "average" if head is not None and len(head) == _AVERAGE else "netvlad"
  network = Tagger(NUM_CATEGORIES, audio_pooling=pooling)
  expected = store.flatten(networks.expected_variables(network, 0))
  store.check_fit(path, found.arrays, expected, "VGGSound's network with its classifier")
  variables = store.unflatten(found.arrays)
  hear = make_tagger(network, variables, run.config.inference_batch, jax.nn.softmax)
  return lambda clip: hear(run.training_clip(clip)), found.sha256
