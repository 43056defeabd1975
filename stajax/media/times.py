"""The one clock of a media file, on which its pictures and its sound get their times together.

Every stream of a file has time stamps of its own, which may start late, start again where recordings were joined, jump,
be missing, or be damaged. `file_clock` reads the stamps of the picture and of the sound once, in the order of the file,
and decides for both what has to be added to them. The rules, which agree with ffmpeg's where ffmpeg has one:

- A step back is where another recording begins. It follows the one before without an overlap, and its picture and its
  sound are shifted by the same time, so that they stay in sync.
- A long step forward is a still picture, or silence, if the other stream goes on meanwhile. If both jump, it is
  believed as far as the file states its duration; in formats whose clock may jump, such as MPEG-TS, both are joined.
- A few packets whose stamps lead away from a clock that goes on after them are damaged, and count as without stamps.
- Frames without stamps follow each other at the usual interval, also backwards from the first stamp.

Times here are seconds on this clock. Functions that show or hear a file count from its first frame, which is at
`FileClock.origin`.
"""

import bisect
import os
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError

from stajax.media.file import DEFAULT, MAX_GAP, Decoding, MediaError, decode, open_media, sound_stream, video_stream

STEP_BACK = 0.5  # seconds; stamps of successive packets that go back further are of another clock
STEP_FORWARD = 10.0  # seconds; a longer step forward is looked at, as ffmpeg does where clocks may jump
FEW_PACKETS = 5  # so many packets with other stamps than their neighbours are damaged
SAME_CLOCK = 5.0  # seconds by which the parts of a recording may begin before each other
MAX_STAMPS = 20000  # the number of frames whose stamps decide the usual interval
MAX_UNTIMED = 2000  # the number of frames without stamps at the beginning that are counted
USUAL_RATE = 25.0  # frames a second where a file tells nothing
_TS_DISCONT = 0x0200  # FFmpeg's AVFMT_TS_DISCONT


@dataclass(frozen=True)
class StreamClock:
  """The corrections of the stamps of one stream.

  Attributes:
    numbers: The numbers of the packets, counted from 0, at which another correction begins; the first one is 0.
    offsets: The seconds that are added from there on; None where stamps are damaged.
    start: The time of the first packet, also if it has no stamp of its own; None if no packet has one.
    end: The end of the last packet.
    is_plain: Whether nothing is corrected and every packet follows the one before.
    ignores_pts: Whether only the decoding times of packets count, because the format has no others.
  """

  numbers: tuple[int, ...] = (0,)
  offsets: tuple[float | None, ...] = (0.0,)
  start: float | None = None
  end: float = 0.0
  is_plain: bool = True
  ignores_pts: bool = False


@dataclass(frozen=True)
class FileClock:
  """The clock of a file.

  Attributes:
    picture: The corrections of the picture's stamps.
    sound: Those of the sound's.
    interval: The usual time between successive frames.
    has_durations: Whether the durations that packets of the picture state are plausible.
    believed: The time up to which the file plausibly goes on.
    origin: The time of the first frame that can be decoded; None without a picture.
    notes: A line for each thing that was repaired.
  """

  picture: StreamClock = StreamClock()
  sound: StreamClock = StreamClock()
  interval: float = 1 / USUAL_RATE
  has_durations: bool = True
  believed: float = float("inf")
  origin: float | None = 0.0
  notes: tuple[str, ...] = ()

  @property
  def rate(self) -> float:
    """The usual number of frames per second."""
    return 1 / self.interval

  @property
  def duration(self) -> float:
    """The seconds from the first frame to the end of the last one."""
    return max(self.picture.end - (self.origin or 0.0), self.interval)


class Corrector:
  """Puts the packets of one stream on the clock of the file."""

  def __init__(self, clock: StreamClock) -> None:
    self._clock, self._number = clock, 0

  def __call__(self, packet: av.Packet) -> None:
    """Changes the stamps of the next packet of the stream."""
    if packet.size == 0:  # the packet that ends a stream
      return
    offset = self._clock.offsets[bisect.bisect(self._clock.numbers, self._number) - 1]
    self._number += 1
    if self._clock.ignores_pts:
      packet.pts = None
    if offset is None:
      packet.pts = packet.dts = None
    elif offset and packet.time_base:
      ticks = round(offset / packet.time_base)
      packet.pts = None if packet.pts is None else packet.pts + ticks
      packet.dts = None if packet.dts is None else packet.dts + ticks


class FrameTimer:
  """Gives decoded frames their times on the clock of the file, None where nothing tells them.

  Without presentation times a frame is shown when the first packet that is not shown yet is decoded.
  """

  def __init__(self, clock: FileClock) -> None:
    self._correct, self._decoded = Corrector(clock.picture), deque[float]()
    self._ignores_pts = clock.picture.ignores_pts

  def correct(self, packet: av.Packet) -> None:
    """Puts the next packet on the clock, and remembers when it is decoded."""
    self._correct(packet)
    if self._ignores_pts and packet.size and packet.dts is not None and packet.time_base:
      self._decoded.append(float(packet.dts * packet.time_base))
      if len(self._decoded) > 64:  # more than any decoder holds back
        self._decoded.popleft()

  def lose(self) -> None:
    """Forgets the last packet, which cannot be decoded."""
    if self._decoded:
      self._decoded.pop()

  def time_of(self, frame: av.VideoFrame) -> float | None:
    """Returns the time of the next decoded frame in seconds."""
    if self._ignores_pts:
      return self._decoded.popleft() if self._decoded else None
    return None if frame.pts is None else frame.time


def file_clock(path: Path, decoding: Decoding = DEFAULT) -> FileClock:
  """Returns the clock of a file. Nothing is decoded but the first frames; what is found is kept for the next call.

  Raises:
    MediaError: The file cannot be opened.
  """
  try:
    status = os.stat(path)
  except OSError:
    status = None
  if status is None:
    with open_media(path):  # raises
      return FileClock()
  return _file_clock(str(path), (status.st_ino, status.st_size, status.st_mtime_ns), decoding)


@lru_cache(maxsize=16)
def _file_clock(path: str, _stamp: tuple[int, ...], decoding: Decoding) -> FileClock:
  clock = _read_clock(Path(path), decoding)
  return replace(clock, origin=_first_frame_time(Path(path), clock, decoding))


def _first_frame_time(path: Path, clock: FileClock, decoding: Decoding) -> float | None:
  """Returns when the first frame that can be decoded is shown; frames without times are counted."""
  timer, untimed = FrameTimer(clock), 0
  with open_media(path) as container:
    try:
      stream = video_stream(container, path, decoding)
    except MediaError:
      return None
    for item in decode(container, stream, None, "picture", timer.correct):
      if not isinstance(item, av.VideoFrame):
        timer.lose()
        continue
      time = timer.time_of(item)
      if time is not None:
        return time - untimed * clock.interval
      untimed += 1
      if untimed == MAX_UNTIMED:
        break
  return 0.0 if untimed else None


@dataclass
class _Run:
  """Successive packets of one stream whose stamps go on without a step.

  Attributes:
    number: The number of the first packet in its stream.
    place: The number of the first packet in the file.
    start: The earliest presentation time.
    end: The end of the latest packet that is not far away from its decoding time.
    far_end: The end of the latest packet.
    last: The last stamp in the order of the file.
    count: The number of packets.
    part: The number of the recording that it belongs to.
  """

  number: int
  place: int
  start: float
  end: float
  far_end: float
  last: float
  count: int = 0
  part: int = 0


@dataclass
class _Stamps:
  """What is known of the stamps of a stream while a file is read."""

  ignores_pts: bool = False
  runs: list[_Run] = field(default_factory=list[_Run])
  num_packets: int = 0
  untimed: float = 0.0  # the durations of the packets before the first stamp
  has_pts: bool = False
  has_gaps: bool = False
  is_heard: bool = False  # whether there was a packet that is not to be discarded, as those are that start a decoder
  shown: array = field(default_factory=lambda: array("d"))  # presentation times of the first packets
  durations: array = field(default_factory=lambda: array("d"))

  def add(self, packet: av.Packet, place: int) -> None:
    """Takes the next packet of the stream, which is packet `place` of the file."""
    number, base = self.num_packets, packet.time_base or Fraction(0)
    self.num_packets += 1
    duration = float(max(packet.duration or 0, 0) * base)
    pts = None if packet.pts is None or self.ignores_pts else float(packet.pts * base)
    self.has_pts |= pts is not None
    stamp = pts if packet.dts is None else float(packet.dts * base)
    if stamp is None:
      self.untimed += duration if not self.runs else 0
      return
    shown = stamp if pts is None else pts
    if len(self.shown) < MAX_STAMPS:
      self.shown.append(shown)
      self.durations.append(duration)
    run = self.runs[-1] if self.runs else None
    if run is None or not -STEP_BACK <= stamp - run.last <= STEP_FORWARD:
      run = _Run(number, place, shown, stamp, stamp, stamp)
      self.runs.append(run)
    elif abs(stamp - run.end) > 0.05 or (packet.is_discard and self.is_heard):
      self.has_gaps = True
    self.is_heard |= not packet.is_discard
    run.last, run.count, run.far_end = stamp, run.count + 1, max(run.far_end, shown + duration)
    if abs(shown - stamp) <= MAX_GAP:
      run.start, run.end = min(run.start, shown), max(run.end, shown + duration)


def _read_clock(path: Path, decoding: Decoding) -> FileClock:
  with open_media(path) as container:
    name = container.format.name
    if name.endswith("_pipe"):  # one picture
      return FileClock()
    try:
      video = video_stream(container, path, decoding)
    except MediaError:
      video = None
    sound = sound_stream(container)
    # AVI files have no presentation times; FFmpeg guesses them, in the wrong order if the codec reorders frames.
    picture, heard = _Stamps(name == "avi"), _Stamps()
    streams = [stream for stream in (video, sound) if stream is not None]
    if not streams:
      return FileClock()
    packets = container.demux(streams)
    for place, packet in enumerate(_until_damage(packets)):
      (picture if packet.stream is video else heard).add(packet, place)
    may_jump = bool(int(container.format.flags) & _TS_DISCONT)
    stated = 0.0 if may_jump else (max(container.duration or 0, 0) + (container.start_time or 0)) / 1e6
    interval, has_durations = (1 / USUAL_RATE, True) if video is None else _interval(video, picture)
  return _decide(picture, heard, may_jump, stated, interval, has_durations)


def _until_damage(packets: Iterator[av.Packet]) -> Iterator[av.Packet]:
  """Yields packets up to where a file can be read, without those that end a stream."""
  while True:
    try:
      packet = next(packets, None)
    except MemoryError:
      raise
    except (FFmpegError, OSError):
      return
    if packet is None:
      return
    if packet.size:
      yield packet


def _interval(stream: av.VideoStream, stamps: _Stamps) -> tuple[float, bool]:
  """Returns the usual time between frames, and whether the durations that packets state are plausible.

  The rate that the file states is exact, but it is taken only if frames do follow each other at that rate.
  """
  stated = [float(rate) for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
  stated = [rate for rate in stated if 0.01 <= rate <= 1000]
  order = np.argsort(np.array(stamps.shown), kind="stable")
  steps, durations = np.diff(np.array(stamps.shown)[order]), np.array(stamps.durations)[order]
  usable = (steps > 0) & (steps <= MAX_GAP)
  if not usable.any():  # a single frame, or no stamps
    duration = float(durations[0]) if len(durations) == 1 else 0.0
    return (duration if 0 < duration <= MAX_GAP else 1 / (stated or [USUAL_RATE])[0]), len(durations) == 1
  usual = steps[usable]
  shortest, longest = np.quantile(usual, (0.05, 0.95))
  is_plausible = bool(shortest / 2 <= np.median(durations) <= longest * 1.5)
  median = np.sort(usual)[(len(usual) - 1) // 2]  # one of the steps, never between two of them
  usual = usual[np.abs(usual - median) <= 0.5 * median]
  measured = float(usual.mean())
  interval = next((1 / rate for rate in stated if abs(1 / rate - measured) <= 0.02 * measured), measured)
  return interval, is_plausible


def _decide(
  picture: _Stamps, sound: _Stamps, may_jump: bool, stated: float, interval: float, has_durations: bool
) -> FileClock:
  """Decides the corrections of both streams together."""
  both = (picture, sound)
  damaged = [_remove_damaged(stamps) for stamps in both]
  num_parts = _number_parts(both, may_jump, stated)
  offsets = _part_offsets(both, num_parts)
  clocks = [_stream_clock(stamps, numbers, offsets) for stamps, numbers in zip(both, damaged)]
  believed = max(stated, *(clock.end for clock in clocks))
  far = (run.far_end + offsets[run.part] for run in picture.runs)
  end = max((time for time in far if time <= believed + 1), default=clocks[0].end)
  notes = [f"clock: starts again {num_parts - 1}×, the recordings follow each other"] if num_parts > 1 else []
  if any(damaged):
    notes.append("clock: damaged time stamps ignored")
  clocks[0] = replace(clocks[0], end=end + (0 if has_durations else interval))
  return FileClock(clocks[0], clocks[1], interval, has_durations, believed, notes=tuple(notes))


def _stream_clock(stamps: _Stamps, damaged: list[int], offsets: list[float]) -> StreamClock:
  if not stamps.runs:
    return StreamClock()
  changes: dict[int, float | None] = {run.number: offsets[run.part] for run in stamps.runs}
  changes |= {0: offsets[stamps.runs[0].part]} | dict.fromkeys(damaged)
  numbers = sorted(changes)
  first = stamps.runs[0]
  return StreamClock(
    numbers=tuple(numbers),
    offsets=tuple(changes[number] for number in numbers),
    start=first.start + offsets[first.part] - stamps.untimed,
    end=max(run.end + offsets[run.part] for run in stamps.runs),
    is_plain=not (stamps.has_gaps or stamps.untimed or damaged or len(stamps.runs) > 1 or any(changes.values())),
    ignores_pts=not stamps.has_pts,
  )


def _remove_damaged(stamps: _Stamps) -> list[int]:
  """Removes short runs that lead away from a clock which goes on after them; returns where they begin."""
  damaged, kept = list[int](), list[_Run]()
  for run in stamps.runs:
    if len(kept) >= 2 and kept[-1].count <= FEW_PACKETS and abs(run.start - kept[-2].end) <= 1:
      damaged.append(kept.pop().number)
    kept.append(run)
  stamps.runs[:] = kept
  return damaged


def _number_parts(both: tuple[_Stamps, _Stamps], may_jump: bool, stated: float) -> int:
  """Sets the part of each run, in the order of the file; returns the number of parts."""
  runs = sorted(((run, at) for at, stamps in enumerate(both) for run in stamps.runs), key=lambda found: found[0].place)
  before: list[_Run | None] = [None, None]  # the last run of each stream
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


def _goes_on(last: _Run, run: _Run, other: _Stamps, may_jump: bool, stated: float) -> bool:
  """Returns whether a step forward in a stream's clock is time that does pass."""
  gap = run.start - last.end
  if gap <= STEP_FORWARD:
    return True
  covered = sum(max(0.0, min(found.end, run.start) - max(found.start, last.end)) for found in other.runs)
  if covered >= gap / 2:
    return True
  return not may_jump and (gap <= MAX_GAP or run.start <= stated)


def _part_offsets(both: tuple[_Stamps, _Stamps], num_parts: int) -> list[float]:
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
