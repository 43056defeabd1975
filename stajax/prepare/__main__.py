"""Media to records: python -m stajax.prepare SOURCE --root DIR --out DIR …

Sources:
  ave         AVE, 28 audio-visual events
  vggsound    VGGSound, 309 classes
  folders     one folder a tag, with media files in it
  csv         a table of media files and their tags
  stavis      eye-tracking sets in the layout of STAViS
  dhf1k       DHF1K, also to such a tree
  videos      a folder of videos, and tables of fixations if there are any, to such a tree
  synthetic   rendered clips with known answers; needs nothing else

With `--check` a source is only looked at, and what is missing, spare or doubtful is listed.
`python -m stajax.prepare SOURCE --help` lists a source's arguments.
Exit codes: 0 done, 1 some files failed or are missing, 2 a one-line error on stderr.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

if TYPE_CHECKING:
  from stajax.media.limits import Limits
  from stajax.prepare.listing import Listing

SHOWN = 3  # reasons of skipped files in the last line; the summary has all


@dataclass(frozen=True)
class LimitOptions:
  """How media files are decoded, and what one may cost."""

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

  def limits(self) -> Limits:
    """What one file may cost."""
    from stajax.media.limits import Limits

    memory = round(self.memory_gib * 2**30)
    return Limits(self.max_seconds, self.max_pixels, self.max_bytes, self.time_limit, memory)


@dataclass(frozen=True)
class Options(LimitOptions):
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
  beam: str | None = None
  """Options of an Apache Beam pipeline that does the work: `--beam="--runner=FlinkRunner …"`, see launch/beam.md."""
  tagger: Path | None = None
  """YAMNet as a TFLite file (extra `yamnet`): its scores of the sound at every frame of `train` are stored too, for
  `hearing.kind` yamnet. Records that are finished stay as they are. By processes here, also with --beam."""


@dataclass(frozen=True)
class TreeOptions(LimitOptions):
  """What a source takes that becomes a tree in the layout of STAViS."""

  out: Path | None = None
  """Folder for the tree, which may have other databases. Finished videos are left as they are."""
  check: bool = False
  """Only look: list what is missing, spare or doubtful, file by file. Nothing is written."""
  time_limit: float = 3600.0
  """Seconds that a video may take; then it is given up."""


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
  from stajax.prepare.layouts.folders import read_folders

  return from_listing(read_folders(root), options)


def csv(table: Path, options: Options, root: Path | None = None) -> Result:
  """A table of media files: columns `path`, `tags` (several separated by `;` or `|`), and, if wanted, `part`.

  Args:
    table: a CSV file (a comma or a tab between columns) whose first line names the columns.
    root: the paths are relative to it and may not leave it; by default the table's folder.
    options: of all sources.
  """
  from stajax.prepare.layouts.table import read_table

  return from_listing(read_table(table, root or table.parent), options)


def ave(root: Path, options: Options, videos: Path | None = None) -> Result:
  """AVE: clips of 28 audio-visual events. DIR/train, DIR/val and DIR/test are those of its split files.

  Args:
    root: AVE_Dataset, with Annotations.txt, the split files and the folder AVE; or the folder above.
    options: of all sources.
    videos: the folder with <VideoID>.mp4, where it is elsewhere.
  """
  from stajax.prepare.layouts.ave import read_ave

  return from_listing(read_ave(root, videos), options)


def vggsound(root: Path, options: Options, table: Path | None = None, videos: Path | None = None) -> Result:
  """VGGSound: clips of 309 classes, or as many as there are. DIR/train and DIR/test are those of its table.

  Args:
    root: holds vggsound.csv, stat.csv if there is one, and the media files, <YouTubeID>_000030.mp4, in any folders.
    options: of all sources.
    table: vggsound.csv (or train.csv or test.csv), where it is elsewhere.
    videos: the folder with the media files, where it is elsewhere.
  """
  from stajax.prepare.layouts.vggsound import read_vggsound

  return from_listing(read_vggsound(root, table, videos), options)


def stavis(root: Path, options: Options, databases: tuple[str, ...] = (), fps: float | None = None) -> Result:
  """Eye-tracking sets in the layout of STAViS: DIR/test has each video of a test list once, without tags.

  Args:
    root: the tree: video_frames, video_audio, annotations and fold_lists.
    options: of all sources.
    databases: their names; by default all.
    fps: frames a second, of databases that have no lists.
  """
  from stajax.prepare.layouts.stavis import read_stavis

  return from_listing(read_stavis(root, databases, fps), options)


def dhf1k(root: Path, options: Options, tree: Path | None = None) -> Result:
  """DHF1K: DIR/train, DIR/val and DIR/test are the official parts, without tags.

  Args:
    root: the folder with `video` and `annotation`, or the one above.
    options: of all sources.
    tree: folder for a tree in the layout of STAViS, which scores need: it gets all videos that have annotations.
  """
  from stajax.prepare.layouts.dhf1k import read_dhf1k

  listing = read_dhf1k(root)
  if options.check or tree is None:
    return from_listing(listing, options)
  from stajax.prepare.tree import prepare_dhf1k_tree

  result = described_tree(tree, prepare_dhf1k_tree(listing, tree, options.limits(), processes_of(options)))
  if options.out is None:
    return result
  records = from_listing(listing, options)
  return Result(f"{result.text}\n{records.text}", result.failed or records.failed)


def videos(
  root: Path,
  options: TreeOptions,
  tables: Path | None = None,
  database: str = "videos",
  sigma: float = 0.02,
  first_frame: int = 0,
) -> Result:
  """A folder of videos, and tables of where viewers looked, to a tree in the layout of STAViS.

  A table is ROOT/…/name.csv beside ROOT/…/name.mp4, with a header line: columns x and y (pixels), and frame or time
  (seconds); if wanted, duration (seconds) and viewer. Sound may lie there as name.wav. Without tables the tree can be
  predicted and prepared (`stavis`), but not scored.

  Args:
    root: holds the videos.
    options: of trees.
    tables: holds the tables, where they are not beside the videos.
    database: name of the videos in the tree.
    sigma: of the Gaussian around every fixation, as a part of the picture's width; 0.02 is 13 pixels of 640, as DHF1K.
    first_frame: number that the tables give a video's first frame.
  """
  from stajax.prepare.layouts.videos import read_videos

  if not 0 < sigma < 1:
    raise ValueError(f"--sigma is {sigma}, expected a part of the picture's width between 0 and 1")
  folder = read_videos(root, tables)
  if options.check:
    return check(folder.listing)
  if options.out is None:
    raise ValueError("expected --out DIR, or --check")
  from stajax.prepare.annotations import TableAnnotations
  from stajax.prepare.tree import prepare_tree

  annotations = {name: TableAnnotations(path, sigma, first_frame) for name, path in folder.tables.items()}
  limits = options.limits()
  summary = prepare_tree(folder.listing, annotations, options.out, database, limits, processes_of(options))
  return described_tree(options.out, summary)


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
  from stajax.prepare.embedded import prepare_heldout, prepare_synthetic
  from stajax.prepare.synthetic import Settings

  settings = Settings(size=size, rate=rate, seconds=seconds)
  processes = processes or os.cpu_count() or 1
  train = prepare_synthetic(out / "train", seed=seed, num_clips=clips, settings=settings, processes=processes)
  held = prepare_heldout(
    out / "heldout", out / "heldout_tree", seed=seed, num_clips=heldout, settings=settings, processes=processes
  )
  return Result(f"{out}: synthetic, train {describe(train)}; held-out {describe(held)}")


SOURCES: dict[str, Callable[..., Result]] = {
  source.__name__: source for source in (ave, vggsound, folders, csv, stavis, dhf1k, videos, synthetic)
}


def from_listing(listing: Listing, options: Options) -> Result:
  """Prepares what a source lists, or, with `--check`, shows it: what most sources do."""
  if options.check:
    return check(listing)
  if options.out is None:
    raise ValueError("expected --out DIR, or --check")
  from stajax.prepare.clip import MediaSettings
  from stajax.prepare.media_records import LocalWorkers, prepare

  settings = MediaSettings(options.rate, options.side, options.segment)
  workers = LocalWorkers(processes_of(options))
  if options.beam is not None:
    from stajax.prepare.beam import BeamWorkers

    workers = BeamWorkers(tuple(shlex.split(options.beam)))
  if options.tagger is not None:
    from stajax.prepare.yamnet import Yamnet

    Yamnet(options.tagger)  # one that cannot be used is said now, not after hours
  summaries = prepare(listing, options.out, settings, options.limits(), workers)
  parts = "; ".join(f"{part} {describe(summary)}" for part, summary in summaries.items())
  if options.tagger is not None:
    from stajax.prepare.sound_tagging import tag_sound

    tag_sound(listing, options.out, options.tagger, settings, options.limits(), processes_of(options))
    parts += f"; {options.tagger.name} has heard train"
  return Result(f"{options.out}: {listing.source}, {parts}", any(summary["skipped"] for summary in summaries.values()))


def processes_of(options: LimitOptions) -> int:
  """How many processes decode."""
  return options.processes or os.cpu_count() or 1


def described_tree(out: Path, summary: dict) -> Result:
  """What was written into a tree and what was not, in a few words."""
  counts = summary["counts"]
  words = f"{counts['videos']} videos with {counts['frames']} frames, {counts['annotated_frames']} of them annotated, "
  words += f"{counts['videos_without_sound']} without sound, {describe_skipped(summary)}"
  return Result(f"{out}: {summary['database']}, {words}", bool(summary["skipped"]))


def check(listing: Listing) -> Result:
  """Every remark about a source, and how many clips it has by part and category."""
  from stajax.prepare.listing import count_remarks, format_remarks

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
  counts = summary["counts"]
  words = f"{counts['clips']} clips with {counts['frames']} frames, {counts['clips_without_sound']} without sound"
  return f"{words}, {describe_skipped(summary)}"


def describe_skipped(summary: dict) -> str:
  """How many files were skipped, and why the first ones were."""
  skipped = summary["skipped"]
  first = "; ".join(f"{entry['file']}: {entry['reason']}" for entry in skipped[:SHOWN])
  return f"{len(skipped)} skipped" + (f" (first: {first})" if first else "")


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
