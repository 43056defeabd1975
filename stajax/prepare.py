"""Media to records: python -m stajax.prepare SOURCE --root DIR --out DIR …

Sources:
  ave         AVE, 28 audio-visual events
  vggsound    VGGSound, 309 classes
  folders     one folder a tag, with media files in it
  csv         a table of media files and their tags
  stavis      eye-tracking sets in the layout of STAViS
  synthetic   rendered clips with known answers; needs nothing else

With `--check` a source is only looked at, and what is missing, spare or doubtful is listed.
`python -m stajax.prepare SOURCE --help` lists a source's arguments.
Exit codes: 0 done, 1 some files failed, 2 a one-line error on stderr.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

if TYPE_CHECKING:
  from stajax.data.listing import Listing

SHOWN = 3  # reasons of skipped files in the last line; the summary has all


@dataclass(frozen=True)
class Options:
  """What all sources of media files take."""

  out: Path | None = None
  """Folder for the records, DIR/train and so on. A finished part is left as it is, an interrupted one is completed."""
  check: bool = False
  """Only look: list what is missing, spare or doubtful, file by file, and count the clips. Nothing is written."""
  rate: float = 8.0
  """Frames a second of the grid."""
  side: int = 512
  """Of the square frames that are stored, pixels."""
  segment: float = 60.0
  """Seconds; a longer video becomes several clips."""
  processes: int | None = None
  """That decode; by default one a core."""
  max_seconds: float = 3600.0
  """A longer video is cut there."""
  max_pixels: int = 2**25
  """Of one picture; a larger one is refused."""
  max_bytes: int = 2**34
  """Size of a file; a larger one is refused."""
  time_limit: float = 300.0
  """Seconds that a file may take; then it is given up."""
  memory_gib: float = 4.0
  """GiB of memory that a process may take for a file."""


@dataclass(frozen=True)
class Result:
  """What a source's command ends with: a text for stdout, and whether some files failed."""

  text: str
  failed: bool = False


def folders(root: Path, options: Options) -> Result:
  """One folder a tag: ROOT/TAG/…/file. Categories are the folders' names, sorted; hidden files are ignored.

  Args:
    root: holds the folders.
    options: of all sources.
  """
  from stajax.data.layouts.folders import read_folders

  return from_listing(read_folders(root), options)


def csv(table: Path, options: Options, root: Path | None = None) -> Result:
  """A table of media files: columns `path`, `tags` (several separated by `;` or `|`), and, if wanted, `part`.

  Args:
    table: a CSV file (a comma or a tab between columns) whose first line names the columns.
    root: the paths are relative to it and may not leave it; by default the table's folder.
    options: of all sources.
  """
  from stajax.data.layouts.table import read_table

  return from_listing(read_table(table, root or table.parent), options)


def ave(root: Path, options: Options, videos: Path | None = None) -> Result:
  """AVE: clips of 28 audio-visual events. DIR/train, DIR/val and DIR/test are those of its split files.

  Args:
    root: AVE_Dataset, with Annotations.txt, the split files and the folder AVE; or the folder above.
    options: of all sources.
    videos: the folder with <VideoID>.mp4, where it is elsewhere.
  """
  from stajax.data.layouts.ave import read_ave

  return from_listing(read_ave(root, videos), options)


def vggsound(root: Path, options: Options, table: Path | None = None, videos: Path | None = None) -> Result:
  """VGGSound: clips of 309 classes, or as many as there are. DIR/train and DIR/test are those of its table.

  Args:
    root: holds vggsound.csv, stat.csv if there is one, and the media files, <YouTubeID>_000030.mp4, in any folders.
    options: of all sources.
    table: vggsound.csv (or train.csv or test.csv), where it is elsewhere.
    videos: the folder with the media files, where it is elsewhere.
  """
  from stajax.data.layouts.vggsound import read_vggsound

  return from_listing(read_vggsound(root, table, videos), options)


def stavis(root: Path, options: Options, databases: tuple[str, ...] = (), fps: float | None = None) -> Result:
  """Eye-tracking sets in the layout of STAViS: DIR/test has each video of a test list once, without tags.

  Args:
    root: the tree: video_frames, video_audio, annotations and fold_lists.
    options: of all sources.
    databases: their names; by default all.
    fps: frames a second, of databases that have no lists.
  """
  from stajax.data.layouts.stavis import read_stavis

  return from_listing(read_stavis(root, databases, fps), options)


def synthetic(
  out: Path,
  clips: int = 300,
  heldout: int = 60,
  seed: int = 0,
  size: int = 128,
  rate: float = 8.0,
  seconds: float = 3.0,
  processes: int | None = None,
) -> Result:
  """Renders synthetic clips with known answers: DIR/train, DIR/heldout (records) and DIR/heldout_tree (STAViS layout).

  Args:
    out: folder for all three; a finished one is left as it is, an interrupted one is completed.
    clips: number of training clips.
    heldout: number of held-out clips, with ten viewers each.
    seed: of everything; the held-out clips derive another one from it.
    size: side of the frames in pixels.
    rate: frames a second.
    seconds: length of a clip.
    processes: that render; by default one a core.
  """
  from stajax.data.prepare_synthetic import prepare_heldout, prepare_synthetic
  from stajax.data.synthetic import Settings

  settings = Settings(size=size, rate=rate, seconds=seconds)
  processes = processes or os.cpu_count() or 1
  train = prepare_synthetic(out / "train", seed=seed, num_clips=clips, settings=settings, processes=processes)
  held = prepare_heldout(
    out / "heldout", out / "heldout_tree", seed=seed, num_clips=heldout, settings=settings, processes=processes
  )
  return Result(f"{out}: synthetic, train {describe(train)}; held-out {describe(held)}")


SOURCES: dict[str, Callable[..., Result]] = {
  source.__name__: source for source in (ave, vggsound, folders, csv, stavis, synthetic)
}


def from_listing(listing: Listing, options: Options) -> Result:
  """Prepares what a source lists, or, with `--check`, shows it: what most sources do."""
  if options.check:
    return check(listing)
  if options.out is None:
    raise ValueError("expected --out DIR, or --check")
  from stajax.data.clip_media import MediaSettings
  from stajax.data.limits import Limits
  from stajax.data.prepare_media import prepare

  settings = MediaSettings(options.rate, options.side, options.segment)
  memory = round(options.memory_gib * 2**30)
  limits = Limits(options.max_seconds, options.max_pixels, options.max_bytes, options.time_limit, memory)
  summaries = prepare(listing, options.out, settings, limits, options.processes or os.cpu_count() or 1)
  parts = "; ".join(f"{part} {describe(summary)}" for part, summary in summaries.items())
  return Result(
    f"{options.out}: {listing.source}, {parts}", any(summary["skipped"] for summary in summaries.values())
  )


def check(listing: Listing) -> Result:
  """Every remark about a source, and how many clips it has by part and category."""
  from stajax.data.listing import count_remarks, format_remarks

  lines = format_remarks(listing.remarks)
  for part in listing.parts:
    items = [item for item in listing.items if item.part == part]
    tags = Counter(tag for item in items for tag in item.tags)
    lines.append(f"{part}: {len(items)} clips")
    lines += [f"  {tags[category]:6} {category}" for category in listing.categories]
  counts = ", ".join(f"{number} {kind}" for kind, number in count_remarks(listing.remarks).items())
  lines.append(
    f"{listing.root}: {listing.source}, {len(listing.items)} clips, {len(listing.categories)} categories; "
    f"{counts or 'nothing missing, spare or doubtful'}"
  )
  return Result("\n".join(lines), any(remark.kind == "missing" for remark in listing.remarks))


def describe(summary: dict) -> str:
  """What a data set's summary says was kept and why not, in a few words."""
  counts, skipped = summary["counts"], summary["skipped"]
  words = f"{counts['clips']} clips with {counts['frames']} frames, {counts['clips_without_sound']} without sound, "
  words += f"{len(skipped)} skipped"
  if skipped:
    first = "; ".join(f"{entry['file']}: {entry['reason']}" for entry in skipped[:SHOWN])
    words += f" (first: {first})"
  return words


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  argv = list(sys.argv[1:] if argv is None else argv)
  if argv[:1] in (["-h"], ["--help"]):
    print(__doc__.strip())
    return 0
  source = argv[0] if argv else ""
  if source not in SOURCES:
    print(f"stajax prepare: source {source!r} is unknown, known sources: {', '.join(SOURCES)}", file=sys.stderr)
    return 2
  try:
    result = tyro.cli(
      SOURCES[source], args=argv[1:], prog=f"stajax prepare {source}", config=(tyro.conf.OmitArgPrefixes,)
    )
  except (ValueError, OSError) as error:
    print(f"stajax prepare: {error}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print("stajax prepare: interrupted; the same command goes on from here", file=sys.stderr)
    return 130
  print(result.text)
  return 1 if result.failed else 0


if __name__ == "__main__":
  sys.exit(main())
