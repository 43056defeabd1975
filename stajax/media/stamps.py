"""The time stamps of a file's streams, divided into the recordings that they belong to; see `stajax.media.times`."""

from array import array
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np

from stajax.media.file import MAX_GAP

STEP_BACK = 0.5  # seconds; stamps of successive packets that go back further are of another clock
STEP_FORWARD = 10.0  # seconds; a longer step forward is looked at, as ffmpeg does where clocks may jump
FEW_PACKETS = 5  # so many packets with other stamps than their neighbours are damaged
SAME_CLOCK = 5.0  # seconds by which the parts of a recording may begin before each other
SPARSE = 0.05  # the share of stamps that must have packets without a stamp between them for that to be usual
MAX_STAMPS = 20000  # the number of frames whose stamps decide the usual interval


@dataclass
class Run:
  """Successive packets of one stream whose stamps go on without a step.

  Attributes:
    number: The number of the first packet in its stream.
    place: The number of the first packet in the file.
    start: The earliest presentation time.
    end: The end of the latest packet that is not far away from its decoding time.
    latest: The latest presentation time.
    length: How long the packet lasts that is shown then.
    untimed: The number of packets without a stamp after the last one that has one.
    last: The last stamp in the order of the file.
    count: The number of packets.
    part: The number of the recording that it belongs to.
  """

  number: int
  place: int
  start: float
  end: float
  latest: float
  length: float
  last: float
  count: int = 0
  part: int = 0
  untimed: int = 0


@dataclass
class Stamps:
  """What is known of the stamps of a stream while a file is read."""

  ignores_pts: bool = False
  runs: list[Run] = field(default_factory=list[Run])
  num_packets: int = 0
  untimed: float = 0.0  # the durations of the packets before the first stamp
  has_pts: bool = False
  has_gaps: bool = False
  numbers: array = field(default_factory=lambda: array("q"))  # those of the first packets with stamps
  decoded: array = field(default_factory=lambda: array("d"))  # their stamps
  shown: array = field(default_factory=lambda: array("d"))  # their presentation times
  durations: array = field(default_factory=lambda: array("d"))

  def add(self, packet: av.Packet, place: int) -> None:
    """Takes the next packet of the stream, which is packet `place` of the file."""
    number, base = self.num_packets, packet.time_base or Fraction(0)
    self.num_packets += 1
    if packet.is_discard:  # it only starts the decoder, as where an edit list enters a recording, and is never shown
      self.has_gaps |= bool(self.runs)
      return
    duration = min(float(max(packet.duration or 0, 0) * base), MAX_GAP)
    pts = None if packet.pts is None or self.ignores_pts else float(packet.pts * base)
    self.has_pts |= pts is not None
    stamp = pts if packet.dts is None else float(packet.dts * base)
    if stamp is None:
      if self.runs:
        self.runs[-1].untimed += 1
      else:
        self.untimed += duration
      return
    shown = stamp if pts is None else pts
    if len(self.shown) < MAX_STAMPS:
      self.numbers.append(number)
      self.decoded.append(stamp)
      self.shown.append(shown)
      self.durations.append(duration)
    run = self.runs[-1] if self.runs else None
    if run is None or not -STEP_BACK <= stamp - run.last <= STEP_FORWARD:
      run = Run(number, place, shown, stamp, shown, 0.0, stamp)
      self.runs.append(run)
    elif abs(stamp - run.end) > 0.05:
      self.has_gaps = True
    run.last, run.count, run.untimed = stamp, run.count + 1, 0
    if shown >= run.latest:
      run.latest, run.length = shown, duration
    if abs(shown - stamp) <= MAX_GAP:
      run.start, run.end = min(run.start, shown), max(run.end, shown + min(duration, STEP_FORWARD))

  def steps(self) -> np.ndarray:
    """Returns the times between successive frames in seconds, as far as stamps tell; some may be 0 or less."""
    counts = np.diff(np.array(self.numbers, np.int64))
    if (counts > 1).sum() > SPARSE * len(counts):  # only some packets have stamps, as in MPEG program streams
      return np.diff(np.array(self.decoded)) / np.maximum(counts, 1)
    return np.diff(np.sort(np.array(self.shown)))

  def extend(self, interval: float) -> None:
    """Lets each run last until the packets without stamps at its end are over, given the usual time between them."""
    for run in self.runs:
      run.end, run.latest, run.untimed = run.end + run.untimed * interval, run.latest + run.untimed * interval, 0


def remove_damaged(stamps: Stamps) -> list[int]:
  """Removes short runs that lead away from a clock which goes on after them; returns where they begin."""
  damaged, kept = list[int](), list[Run]()
  for run in stamps.runs:
    if len(kept) >= 2 and kept[-1].count <= FEW_PACKETS and abs(run.start - kept[-2].end) <= 1:
      damaged.append(kept.pop().number)
    kept.append(run)
  stamps.runs[:] = kept
  return damaged


def number_parts(both: tuple[Stamps, Stamps], may_jump: bool, stated: float) -> int:
  """Sets the part of each run, in the order of the file; returns the number of parts."""
  runs = sorted(((run, at) for at, stamps in enumerate(both) for run in stamps.runs), key=lambda found: found[0].place)
  before: list[Run | None] = [None, None]  # the last run of each stream
  spans: list[list[float]] = []  # the first and the last stamp of each part on the clock of its own
  for run, at in runs:
    last, other = before[at], both[1 - at]
    if last is None:
      is_same = bool(spans) and spans[-1][0] - MAX_GAP <= run.start <= spans[-1][1] + MAX_GAP
      run.part = len(spans) - 1 if is_same else len(spans)
    else:
      newest = len(spans) - 1
      is_joined = newest > last.part and spans[newest][0] - SAME_CLOCK <= run.start <= spans[newest][1] + SAME_CLOCK
      if is_joined:
        run.part = newest
      elif run.start >= last.end - STEP_BACK and _goes_on(last, run, other, may_jump, stated):
        run.part = last.part
      else:
        run.part = len(spans)
    if run.part == len(spans):
      spans.append([run.start, run.end])
    spans[run.part][1] = max(spans[run.part][1], run.end)
    before[at] = run
  return max(1, len(spans))


def _goes_on(last: Run, run: Run, other: Stamps, may_jump: bool, stated: float) -> bool:
  """Returns whether a step forward in a stream's clock is time that does pass."""
  gap = run.start - last.end
  if gap <= STEP_FORWARD:
    return True
  covered = sum(max(0.0, min(found.end, run.start) - max(found.start, last.end)) for found in other.runs)
  if covered >= gap / 2:
    return True
  return not may_jump and (gap <= MAX_GAP or run.start <= stated)


def part_offsets(both: tuple[Stamps, Stamps], num_parts: int) -> list[float]:
  """Returns what is added to the stamps of each part, so that the parts follow each other without an overlap."""
  offsets = [0.0]
  for part in range(1, num_parts):
    ends = [max((run.end + offsets[run.part] for run in x.runs if run.part < part), default=None) for x in both]
    starts = [min((run.start for run in x.runs if run.part == part), default=None) for x in both]
    shifts = [end - start for end, start in zip(ends, starts) if end is not None and start is not None]
    if not shifts:  # the stream begins with a clock that has nothing to do with that of the other one
      first = min(run.start for x in both for run in x.runs if run.part == 0)
      shifts = [first - start for start in starts if start is not None]
    offsets.append(max(shifts))
  return offsets
