"""How long the header of a file says that it is, to see where the end of a file is missing."""

from collections.abc import Sequence
from pathlib import Path

import av
from av.container import InputContainer

from stajax.media.crop import SEGMENT, elements
from stajax.media.file import seconds

_INFO, _DURATION = 0x1549A966, 0x4489
_TIMED_STREAMS = {"avi", "mov,mp4,m4a,3gp,3g2,mj2"}  # whose headers state the length of each stream
_TIMED_FILES = {"flv", "matroska,webm"}  # whose headers state that of the whole file
# FFmpeg guesses the length of files in other formats from their last time stamps, or from a bit rate.


def stated_end(
  container: InputContainer, streams: Sequence[av.VideoStream | av.AudioStream], path: Path
) -> float | None:
  """Returns the time in seconds at which the header of a file says that streams end, None where it does not say so.

  Args:
    container: The open file.
    streams: The streams.
    path: The file.
  """
  name = container.format.name
  if name in _TIMED_STREAMS:
    ends = [seconds((each.start_time or 0) + each.duration, each.time_base) for each in streams if each.duration]
    return max((end for end in ends if end is not None), default=None)
  # A stream that is not read, such as subtitles, may be longer.
  if name not in _TIMED_FILES or len(container.streams) > len(streams) or not container.duration:
    return None
  return None if name != "flv" and not _states_duration(path) else container.duration / 1e6


def _states_duration(path: Path) -> bool:
  """Returns whether the header of a Matroska file has a duration; that of a live stream has none."""
  try:
    with path.open("rb") as file:
      end = file.seek(0, 2)
      for name, start, _ in elements(file, 0, end):
        if name == SEGMENT:
          infos = [(at, size) for inner, at, size in elements(file, start, end) if inner == _INFO]
          return any(name == _DURATION for at, size in infos for name, _, _ in elements(file, at, at + size))
  except (OSError, IndexError):
    pass
  return False
