"""The sources of `stajax prepare`: each class has the arguments of a source's command, and `run` does the work."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from stajax.cli import make_out_folder
from stajax.files.lock import exclusive
from stajax.prepare.layouts.ave import read_ave
from stajax.prepare.layouts.folders import read_folders
from stajax.prepare.layouts.table import read_table
from stajax.prepare.layouts.tagged import learn_from
from stajax.prepare.layouts.vggsound import read_vggsound
from stajax.prepare.listing import Listing
from stajax.prepare.options import GazeOptions, LimitOptions, RecordOptions
from stajax.prepare.summary_text import Result, describe_listing, describe_set, describe_tree
from stajax.prepare.trackers.source import Gaze

# The other modules load libraries that `--help` does not need.


class Source(Protocol):
  """The arguments of a source's command."""

  def run(self) -> Result:
    """Prepares the source.

    Raises:
      NothingUsableError: No file can be used.
      ValueError: An argument or the source cannot be used.
      OSError: A file cannot be read or written.
    """
    ...


@dataclass(frozen=True, kw_only=True)
class RecordSource:
  """The arguments of every source that becomes records."""

  records: RecordOptions
  limits: LimitOptions

  def prepare(self, listing: Listing) -> Result:
    """Prepares the clips of a listing or, with `--check`, describes the listing."""
    return self.records.prepare(listing, self.limits)


@dataclass(frozen=True, kw_only=True)
class Ave(RecordSource):
  """AVE: clips of 28 audio-visual events. DIR/train has all 4,143 sequences, as the paper uses them; see --parts."""

  root: Path
  """AVE_Dataset, with Annotations.txt, the split files and the folder AVE; or the folder above it."""
  videos: Path | None = None
  """The folder with <VideoID>.mp4, if it is elsewhere."""
  parts: tuple[str, ...] = ("train", "val", "test")
  """The parts of the split files that networks learn from, which become DIR/train. The paper (§6.1) takes all; with
  `--parts train`, DIR/val and DIR/test stay held out."""

  def run(self) -> Result:
    """Prepares AVE."""
    return self.prepare(learn_from(read_ave(self.root, self.videos), self.parts))


@dataclass(frozen=True, kw_only=True)
class VggSound(RecordSource):
  """VGGSound: clips of 309 classes, or as many as there are. DIR/train and DIR/test are the parts of its table."""

  root: Path
  """The folder with vggsound.csv, stat.csv if there is one, and, in any folders, <YouTubeID>_000030.mp4."""
  table: Path | None = None
  """The file vggsound.csv (or train.csv or test.csv), if it is elsewhere."""
  videos: Path | None = None
  """The folder with the media files, if it is elsewhere."""

  def run(self) -> Result:
    """Prepares VGGSound."""
    return self.prepare(read_vggsound(self.root, self.table, self.videos))


@dataclass(frozen=True, kw_only=True)
class Folders(RecordSource):
  """One folder for each tag: ROOT/TAG/…/file. Categories are the folders' names, sorted; hidden files are ignored."""

  root: Path
  """The folder that holds the folders."""

  def run(self) -> Result:
    """Prepares a folder of folders."""
    return self.prepare(read_folders(self.root))


@dataclass(frozen=True, kw_only=True)
class Csv(RecordSource):
  """A table of media files: columns `path`, `tags` (several separated by `;` or `|`) and, optionally, `part`."""

  table: Path
  """A CSV file (a comma or a tab between columns) whose first line names the columns."""
  root: Path | None = None
  """The folder that the paths are relative to and may not leave; by default the folder of the table."""

  def run(self) -> Result:
    """Prepares the files of a table."""
    return self.prepare(read_table(self.table, self.root or self.table.parent))


@dataclass(frozen=True, kw_only=True)
class Stavis(RecordSource):
  """Eye-tracking sets in the layout of STAViS: DIR/test has each video of a test list once. With --split and --tags the
  videos of its train lists are clips that networks can learn from (the paper's Table 4)."""

  root: Path
  """The tree: video_frames, video_audio, annotations and fold_lists."""
  databases: tuple[str, ...] = ()
  """The names of the databases; by default all."""
  fps: float | None = None
  """The frames per second of databases that have no lists."""
  split: int | None = None
  """Read only the lists of this split: DIR/train has the videos of its train lists, DIR/test those of its test ones."""
  tags: Path | None = None
  """A table with the columns `video`, `tag` (several separated by `|`) and, if names repeat, `database`."""

  def run(self) -> Result:
    """Prepares a tree."""
    from stajax.prepare.layouts.stavis import read_stavis

    return self.prepare(read_stavis(self.root, self.databases, self.fps, self.split, self.tags))


@dataclass(frozen=True, kw_only=True)
class Dhf1k(RecordSource):
  """DHF1K: DIR/train, DIR/val and DIR/test are the official parts, without tags."""

  root: Path
  """The folder with `video` and `annotation`, or the one above it."""
  tree: Path | None = None
  """A folder for a tree in the layout of STAViS, which scores need; it gets all videos that have annotations."""

  def run(self) -> Result:
    """Prepares DHF1K as records, as a tree, or as both."""
    from stajax.prepare.layouts.dhf1k import read_annotations, read_dhf1k

    listing = read_dhf1k(self.root)
    if self.records.check or self.tree is None:
      return self.prepare(listing)
    from stajax.prepare.tree import prepare_tree

    annotations = read_annotations(listing)
    items = tuple(item for item in listing.items if item.name in annotations)
    groups = {part: [item.name for item in items if item.part == part] for part in listing.parts}
    annotated = replace(listing, items=items)
    limits, processes = self.limits.limits(), self.limits.num_processes()
    summary = prepare_tree(annotated, annotations, self.tree, "DHF1K", limits, processes, groups)
    result = describe_tree(self.tree, annotated, summary)
    if self.records.out is None:
      return result
    records = self.prepare(listing)
    return Result(f"{result.text}\n{records.text}", result.has_failures or records.has_failures)


@dataclass(frozen=True, kw_only=True)
class Avimos:
  """AViMoS, the set of the NTIRE 2026 challenge: a tree in the layout of STAViS, for scores and for submissions.

  `predict --data avimos:OUT` then writes a submission, and `evaluate --maps DIR --data avimos:OUT` scores one as the
  challenge does. Densities keep all their bits, and each pixel how often it is fixated.
  """

  root: Path
  """The folder with TrainTestSplit.json, Videos, SaliencyTest and FixationsTest (or …Train), as they were unpacked."""
  out: Path | None = None
  """The folder for the tree. Finished videos are left as they are."""
  parts: tuple[str, ...] = ()
  """The parts of TrainTestSplit.json, each a set of its own in scores; by default all but train."""
  check: bool = False
  """Only look: list what is missing. Nothing is written."""
  limits: LimitOptions = field(default_factory=lambda: LimitOptions(time_limit=3600.0))

  def run(self) -> Result:
    """Prepares the challenge's files."""
    from stajax.prepare.layouts.avimos import read_avimos
    from stajax.prepare.tree import prepare_tree

    listing, annotations = read_avimos(self.root, self.parts)
    if self.check:
      return describe_listing(listing)
    if self.out is None:
      raise ValueError("expected --out DIR, or --check")
    groups = {part: [item.name for item in listing.items if item.part == part] for part in listing.parts}
    limits, processes = self.limits.limits(), self.limits.num_processes()
    summary = prepare_tree(listing, annotations, self.out, "AViMoS", limits, processes, groups)
    return describe_tree(self.out, listing, summary)


@dataclass(frozen=True, kw_only=True)
class Videos:
  """Turns a folder of videos, and tables of where viewers looked, into a tree in the layout of STAViS.

  A table is ROOT/…/name.csv beside ROOT/…/name.mp4, with a header line that names the columns: x and y (pixels), frame
  or time (seconds) and, optionally, duration (seconds) and viewer. Other units have to be stated; a table whose values
  contradict its units is refused, and rows that are lost are printed. Sound may lie beside it as name.wav, name.flac or
  name.mp3. Without tables the tree can be predicted and prepared (`stavis`), but not scored.
  """

  root: Path
  """The folder with the videos."""
  out: Path | None = None
  """The folder for the tree, which may have other databases. Finished videos are left as they are."""
  check: bool = False
  """Only look: list what is missing, spare or doubtful, file by file. Nothing is written."""
  tables: Path | None = None
  """The folder with the tables, if they are not beside the videos."""
  database: str = "videos"
  """The name of the videos in the tree."""
  sigma: float = 0.02
  """The Gaussians' standard deviation as a fraction of the picture's width; 0.02 is 13 pixels of 640, as in DHF1K."""
  first_frame: int = 0
  """The number of a video's first frame in the tables."""
  gaze: GazeOptions = field(default_factory=GazeOptions)
  limits: LimitOptions = field(default_factory=lambda: LimitOptions(time_limit=3600.0))

  def run(self) -> Result:
    """Prepares a folder of videos."""
    from stajax.prepare.layouts.videos import read_videos

    if not 0 < self.sigma < 1:
      raise ValueError(f"--sigma is {self.sigma}, expected a fraction of the picture's width between 0 and 1")
    units = self.gaze.gaze_units()
    listing, tables = read_videos(self.root, self.tables)
    from stajax.prepare.annotations import TableAnnotations, examine_tables
    from stajax.prepare.tree import prepare_tree

    annotations = {name: TableAnnotations(path, self.sigma, self.first_frame, units) for name, path in tables.items()}
    limits, processes = self.limits.limits(), self.limits.num_processes()
    if self.check:
      return describe_listing(examine_tables(listing, annotations, limits, processes))
    if self.out is None:
      raise ValueError("expected --out DIR, or --check")
    summary = prepare_tree(listing, annotations, self.out, self.database, limits, processes)
    return describe_tree(self.out, listing, summary)


@dataclass(frozen=True, kw_only=True)
class Synthetic:
  """Renders synthetic clips with known answers: DIR/train, DIR/heldout (records) and DIR/heldout_tree (STAViS layout).

  Finished records and trees are left as they are; interrupted ones are completed.
  """

  out: Path
  """The folder for all three."""
  clips: int = 300
  """The number of training clips."""
  heldout: int = 60
  """The number of held-out clips, with ten viewers each."""
  seed: int = 0
  """The seed of everything; the held-out clips derive another one from it."""
  size: int = 128
  """The side of the frames in pixels."""
  rate: float = 8.0
  """The frames per second."""
  seconds: float = 3.0
  """The length of a clip."""
  processes: int | None = None
  """The number of processes that render; by default one for each core."""

  def run(self) -> Result:
    """Renders the clips."""
    from stajax.prepare.synthetic import Settings
    from stajax.prepare.synthetic_records import ClipRange, prepare_synthetic

    settings = Settings(size=self.size, rate=self.rate, seconds=self.seconds)
    training = ClipRange(self.seed, self.clips, "train", settings)
    heldout = ClipRange(self.seed, self.heldout, "heldout", settings)
    processes = self.processes or os.cpu_count() or 1
    make_out_folder("--out", self.out)
    with exclusive(self.out / ".prepare.lock"):
      train = describe_set(prepare_synthetic(self.out / "train", training, processes))
      held = describe_set(prepare_synthetic(self.out / "heldout", heldout, processes, self.out / "heldout_tree"))
    return Result(f"{self.out}: synthetic, train {train}; held-out {held}")


SOURCES: dict[str, type[Source]] = {
  "ave": Ave,
  "vggsound": VggSound,
  "folders": Folders,
  "csv": Csv,
  "stavis": Stavis,
  "dhf1k": Dhf1k,
  "videos": Videos,
  "gaze": Gaze,
  "avimos": Avimos,
  "synthetic": Synthetic,
}
