"""The text that `stajax prepare` prints at the end: what was kept, what was not, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stajax.prepare.listing import Listing, count_remarks, describe_remarks
from stajax.screen import counted

NUM_NOTES = 20  # the number of notes that are printed; the summary has all
NUM_REASONS = 3  # the number of skipped files that the last line names; the summary names all


@dataclass(frozen=True)
class Result:
  """The result of a source's command.

  Attributes:
    text: The text that is printed.
    has_failures: Whether some files failed or are missing.
  """

  text: str
  has_failures: bool = False


def describe_listing(listing: Listing) -> Result:
  """Lists every remark about a source, and the numbers of its clips by part and category."""
  lines = [f"{remark.kind:8} {remark.file}: {remark.reason}" for remark in listing.remarks]
  for part in listing.parts:
    items = [item for item in listing.items if item.part == part]
    tags = Counter(tag for item in items for tag in item.tags)
    lines.append(f"{part}: {counted(len(items), 'clip')}")
    lines += [f"  {tags[category]:6} {category}" for category in listing.categories]
  counts = ", ".join(f"{number} {kind}" for kind, number in count_remarks(listing.remarks).items())
  lines.append(
    f"{listing.root}: {listing.source}, {counted(len(listing.items), 'clip')}, "
    f"{len(listing.categories)} {'category' if len(listing.categories) == 1 else 'categories'}; "
    f"{counts or 'nothing missing, spare or doubtful'}"
  )
  return Result("\n".join(lines), any(remark.kind == "missing" for remark in listing.remarks))


def describe_records(out: Path, listing: Listing, summaries: Mapping[str, dict[str, Any]]) -> Result:
  """Describes the records of each part of a source in a few words."""
  parts = "; ".join(f"{part} {describe_set(summary)}" for part, summary in summaries.items())
  return Result(
    f"{out}: {listing.source}, {parts}{describe_remarks(listing.remarks)}",
    any(summary["skipped"] for summary in summaries.values()),
  )


def describe_tree(out: Path, listing: Listing, summary: dict[str, Any]) -> Result:
  """Describes in a few words what was written into a tree, and what was not."""
  counts = summary["counts"]
  words = f"{counted(counts['videos'], 'video')} with {counted(counts['frames'], 'frame')}, "
  words += f"{counts['annotated_frames']} of them annotated, "
  words += f"{counts['videos_without_sound']} without sound, {_describe_skipped(summary)}"
  words += describe_remarks(listing.remarks)
  lines = [f"note: {video}: {note}" for video, notes in summary["notes"].items() for note in notes]
  if len(lines) > NUM_NOTES:
    lines[NUM_NOTES:] = [f"note: {len(lines) - NUM_NOTES} more are in {out / summary['database']}_summary.json"]
  return Result("\n".join([*lines, f"{out}: {summary['database']}, {words}"]), bool(summary["skipped"]))


def describe_set(summary: dict[str, Any]) -> str:
  """Describes a data set in a few words by its summary: what was kept, and why other files were not."""
  counts = summary["counts"]
  words = f"{counted(counts['clips'], 'clip')} with {counted(counts['frames'], 'frame')}, "
  words += f"{counts['clips_without_sound']} without sound"
  return f"{words}, {_describe_skipped(summary)}"


def _describe_skipped(summary: dict[str, Any]) -> str:
  skipped = summary["skipped"]
  first = "; ".join(f"{entry['file']}: {entry['reason']}" for entry in skipped[:NUM_REASONS])
  return f"{len(skipped)} skipped" + (f" (first: {first})" if first else "")
