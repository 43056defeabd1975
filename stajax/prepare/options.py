"""The options that the sources of `stajax prepare` have in common."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stajax.cli import ended_by_interrupts, make_out_folder
from stajax.files.lock import exclusive
from stajax.prepare.gaze_units import GazeUnits, Origin, TimeUnit, Units, parse_screen
from stajax.prepare.summary_text import Result, describe_listing, describe_records

if TYPE_CHECKING:
  from stajax.media.limits import Limits
  from stajax.prepare.listing import Listing
  from stajax.prepare.media_records import Workers


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
  """How many processes decode media files, and the limits for a file."""

  processes: int | None = None
  """The number of processes that decode; by default one for each core."""
  max_seconds: float = 3600.0
  """The duration at which longer videos are cut."""
  max_pixels: int = 2**25
  """A picture with more pixels is refused."""
  max_bytes: int = 2**34
  """A larger file is refused."""
  time_limit: float = 300.0
  """The seconds after which a file is given up."""
  memory_gib: float = 4.0
  """The GiB of memory that a process may take for a file."""
  sound_stream: int | None = None
  """The sound stream of files that have several, counted from 1; by default the one that the file prefers."""

  def limits(self) -> Limits:
    """Returns the limits for a file."""
    from stajax.media.limits import Limits

    memory = round(self.memory_gib * 2**30)
    return Limits(self.max_seconds, self.max_pixels, self.max_bytes, self.time_limit, memory, self.sound_stream)

  def num_processes(self) -> int:
    """Returns the number of processes that decode."""
    return self.processes or os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class GazeOptions:
  """The units of tables of fixations. What is not stated must fit pixels of the picture and seconds."""

  units: Units | None = None
  """What x and y are: pixels of the picture, normalised (0 to 1 of its sides), percent of them, signed (-1 to 1 from
  its centre), or pixels of a screen that shows it as large as it fits, in the middle (with --screen)."""
  origin: Origin | None = None
  """Where 0, 0 is; y grows downwards, but upwards from `bottom` and in `centre-up`. By default the top left corner."""
  screen: str | None = None
  """The screen's width and height in pixels, such as 1920x1080."""
  time_unit: TimeUnit | None = None
  """The unit of times and durations; by default seconds."""
  duration_unit: TimeUnit | None = None
  """The unit of durations, if it is another one."""

  def gaze_units(self) -> GazeUnits:
    """Returns what was stated; raises ValueError if it does not fit together."""
    screen = parse_screen(self.screen)
    return GazeUnits(self.units, self.origin, screen, self.time_unit, self.duration_unit)


@dataclass(frozen=True, kw_only=True)
class RecordOptions:
  """How the records of a source are made."""

  out: Path | None = None
  """The folder for the records, DIR/train and so on. Finished sets are left as they are; the rest is completed."""
  check: bool = False
  """Only look: list what is missing, spare or doubtful, file by file, and count the clips. Nothing is written."""
  rate: float = 8.0
  """The frames per second of the grid."""
  side: int = 512
  """The side in pixels of the square frames that are stored."""
  segment: float = 60.0
  """The length of a clip in seconds; a longer video becomes several clips."""
  beam: str | None = None
  """Options of an Apache Beam pipeline that does the work: `--beam="--runner=FlinkRunner …"`, see launch/beam.md."""
  tagger: Path | None = None
  """YAMNet's TFLite file (extra `yamnet`), which scores `train` for `hearing.kind` yamnet; not with Beam."""

  def prepare(self, listing: Listing, limits: LimitOptions) -> Result:
    """Prepares the clips of a listing or, with `--check`, describes the listing.

    Finished records stay as they are, but a tagger's scores are added to them.
    """
    if self.check:
      return describe_listing(listing)
    if self.out is None:
      raise ValueError("expected --out DIR, or --check")
    with ended_by_interrupts("stajax prepare"):
      from stajax.prepare.clip import MediaSettings
      from stajax.prepare.media_records import prepare

    settings = MediaSettings(self.rate, self.side, self.segment)
    if self.tagger is not None:
      from stajax.prepare.yamnet import Yamnet

      Yamnet(self.tagger)  # raises at once for a file that cannot be used, not after hours
    make_out_folder("--out", self.out)
    with exclusive(self.out / ".prepare.lock"):
      summaries = prepare(listing, self.out, settings, limits.limits(), self._workers(limits.num_processes()))
    result = describe_records(self.out, listing, summaries)
    if self.tagger is None:
      return result
    from stajax.prepare.sound_tagging import tag_sound

    tag_sound(listing, self.out, self.tagger, settings, limits.limits(), limits.num_processes())
    return Result(f"{result.text}; {self.tagger.name} has heard train", result.has_failures)

  def _workers(self, processes: int) -> Workers:
    if self.beam is None:
      from stajax.prepare.media_records import LocalWorkers

      return LocalWorkers(processes)
    from stajax.prepare.beam import BeamWorkers

    return BeamWorkers(tuple(shlex.split(self.beam)))
