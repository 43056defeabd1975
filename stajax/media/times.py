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
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError

from stajax.media.file import (
  DEFAULT,
  MAX_GAP,
  Decoding,
  MediaError,
  decode,
  open_media,
  sound_stream,
  video_stream,
)
from stajax.media.lengths import stated_end
from stajax.media.stamps import Stamps, number_parts, part_offsets, remove_damaged

MAX_STATED = 3600.0  # seconds; a header alone is not believed beyond that, so that a damaged one cannot ask for days
MAX_UNTIMED = 2000  # the number of frames without stamps at the beginning that are counted
VARYING = 0.05  # the share of the time in which frames may follow each other at another rate
USUAL_RATE = 25.0  # frames a second where a file tells nothing
LOST = 0.5  # seconds; where more of a file is missing at its beginning or its end, a note says so
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
    varies: Whether many frames, or frames for much of the time, do not follow each other at this interval.
    has_durations: Whether the durations that packets of the picture state are plausible.
    believed: The time up to which the file plausibly goes on.
    origin: The time of the first frame that can be decoded; None without a picture.
    notes: A line for each thing that was repaired.
  """

  picture: StreamClock = StreamClock()
  sound: StreamClock = StreamClock()
  interval: float = 1 / USUAL_RATE
  varies: bool = False
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
  clock = known(path, decoding)
  if clock is None:
    clock = _read_clock(path, decoding)
    origin, start = _first_frame_time(path, clock, decoding), clock.picture.start
    clock = replace(clock, origin=origin)
    if origin is not None and start is not None and origin - start > max(LOST, 2 * clock.interval):
      lost = f"picture: its first {origin - start:.2f} s cannot be decoded, left out with their sound"
      clock = replace(clock, notes=(*clock.notes, lost))
    remember(path, decoding, clock)
  return clock


_known: dict[tuple[object, ...], FileClock] = {}


def known(path: Path, decoding: Decoding) -> FileClock | None:
  """Returns the clock of a file if it has been read, and the file has not changed since."""
  return _known.get(_key(path, decoding))


def remember(path: Path, decoding: Decoding, clock: FileClock) -> None:
  """Keeps the clock of a file that was read; a few are kept."""
  _known[_key(path, decoding)] = clock
  while len(_known) > 16:
    del _known[next(iter(_known))]


def _key(path: Path, decoding: Decoding) -> tuple[object, ...]:
  decoding = replace(decoding, hardware=None, falls_back=False)  # which only decode more quickly
  try:
    status = os.stat(path)
  except OSError:
    return (str(path), decoding)
  return (str(path), decoding, status.st_ino, status.st_size, status.st_mtime_ns)


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


def _read_clock(path: Path, decoding: Decoding) -> FileClock:
  with open_media(path) as container:
    name = container.format.name
    if name.endswith("_pipe"):  # one picture
      return FileClock()
    try:
      video = video_stream(container, path, decoding)
    except MediaError:
      video = None
    sound = sound_stream(container, path, decoding)
    # AVI files have no presentation times; FFmpeg guesses them, in the wrong order if the codec reorders frames.
    picture, heard = Stamps(name == "avi"), Stamps()
    streams = [stream for stream in (video, sound) if stream is not None]
    if not streams:
      return FileClock()
    packets = container.demux(streams)
    for place, packet in enumerate(_until_damage(packets)):
      (picture if packet.stream is video else heard).add(packet, place)
    may_jump = bool(int(container.format.flags) & _TS_DISCONT)
    stated = 0.0 if may_jump else (max(container.duration or 0, 0) + (container.start_time or 0)) / 1e6
    interval, has_durations = (1 / USUAL_RATE, True) if video is None else _interval(video, picture)
    header = stated_end(container, streams, path)
  clock = _decide(picture, heard, may_jump, min(stated, MAX_STATED), interval, has_durations)
  end = max(clock.picture.end, clock.sound.end)
  if header is not None and header - end > max(LOST, 2 * interval) and not clock.notes:
    cut = f"clock: the file states {header:.2f} s, but ends at {end:.2f} s, the rest is probably missing"
    return replace(clock, notes=(cut,))
  return clock


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


def _interval(stream: av.VideoStream, stamps: Stamps) -> tuple[float, bool]:
  """Returns the usual time between frames, and whether the durations that packets state are plausible.

  The rate that the file states is exact, but it is taken only if frames do follow each other at that rate.
  """
  stated = [float(rate) for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
  stated = [rate for rate in stated if 0.01 <= rate <= 1000]
  steps, durations = stamps.steps(), np.array(stamps.durations)
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


def _varies(stamps: Stamps, interval: float) -> bool:
  """Returns whether the rate of frames varies so much that the n-th frame before one says nothing about time."""
  steps = stamps.steps()
  steps = steps[(steps > 0) & (steps <= MAX_GAP)]
  return bool(steps[np.abs(steps - interval) > 0.5 * interval].sum() > VARYING * steps.sum())


def _decide(
  picture: Stamps, sound: Stamps, may_jump: bool, stated: float, interval: float, has_durations: bool
) -> FileClock:
  """Decides the corrections of both streams together."""
  both = (picture, sound)
  picture.extend(interval)
  damaged = [remove_damaged(stamps) for stamps in both]
  num_parts = number_parts(both, may_jump, stated)
  offsets = part_offsets(both, num_parts)
  clocks = [_stream_clock(stamps, numbers, offsets) for stamps, numbers in zip(both, damaged)]
  believed = max(stated, *(clock.end for clock in clocks))
  lengths = (run.length if has_durations and run.length else interval for run in picture.runs)
  far = (run.latest + length + offsets[run.part] for run, length in zip(picture.runs, lengths))
  end = max((time for time in far if time <= believed + 1), default=clocks[0].end)
  notes = [f"clock: starts again {num_parts - 1}×, the recordings follow each other"] if num_parts > 1 else []
  if any(damaged):
    notes.append("clock: damaged time stamps ignored")
  if not picture.runs:  # frames that follow each other
    end, has_durations = picture.num_packets * interval, True
  clocks[0] = replace(clocks[0], end=end)
  varies = _varies(picture, interval)
  return FileClock(clocks[0], clocks[1], interval, varies, has_durations, believed, notes=tuple(notes))


def _stream_clock(stamps: Stamps, damaged: list[int], offsets: list[float]) -> StreamClock:
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
