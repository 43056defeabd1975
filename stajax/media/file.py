"""Reading media files by PyAV: opening a file, finding its streams, and decoding that continues after damage.

Files are never trusted: only the file itself is read, no playlist is followed, and sizes are limited.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition

from stajax.hints import address_refusal, is_address
from stajax.media.programs import programs
from stajax.screen import counted

MAX_SIDE = 16384
MAX_PIXELS = 2**25  # a frame of 7680×4320 pixels
MAX_GAP = 600.0  # seconds between two frames, or without sound; a longer gap is a damaged time stamp
# Files in these formats only point at other files, or show any text as a picture.
REFUSED_FORMATS = {"concat", "dash", "ffmetadata", "hls", "image2", "sdp", "tty"}


class MediaError(Exception):
  """A media file cannot be used; the message is one line that names the file."""


@dataclass(frozen=True)
class Decoding:
  """The limits of a decoder.

  Attributes:
    threads: The number of its threads; 0 means one for each core. With 1, a damaged file gives the same frames on every
      machine.
    max_pixels: The largest picture that is decoded.
    sound: The number of the sound stream that is heard, counted from 1; None for the usual one.
    hardware: FFmpeg's kind of device that decodes pictures, such as `cuda`; None for decoding by software. The first
      frame and a few others are always decoded by software.
    falls_back: Whether software decodes, with a note, what the device cannot.
  """

  threads: int = 0
  max_pixels: int = MAX_PIXELS
  sound: int | None = None
  hardware: str | None = None
  falls_back: bool = False

  def check(self, path: Path, width: int, height: int) -> None:
    """Raises MediaError if a picture is too large."""
    if max(width, height) > MAX_SIDE or width * height > self.max_pixels:
      sides = f"at most {MAX_SIDE} a side, {self.max_pixels} in all"
      raise MediaError(f"{path}: picture of {width}×{height} pixels, {sides}")


DEFAULT = Decoding()


def check_is_file(path: Path) -> None:
  """Raises MediaError unless a path is a regular file that is not empty."""
  if is_address(path):
    raise MediaError(address_refusal(path))
  if path.is_dir():
    raise MediaError(f"{path}: is a folder, expected a media file")
  if not path.is_file():
    raise MediaError(f"{path}: {'is not a regular file' if path.exists() else 'no such file'}")
  if path.stat().st_size == 0:
    raise MediaError(f"{path}: is empty, expected a media file")


@contextmanager
def open_media(path: str | Path, hardware: HWAccel | None = None) -> Iterator[InputContainer]:
  """Opens one local file for demuxing, and for decoding by a device if one is given.

  Raises:
    MediaError: There is no such file, or it is not a regular file, empty, or not a media file.
  """
  path = Path(path)
  check_is_file(path)
  try:
    file = path.open("rb")
  except OSError as error:
    raise MediaError(f"{path}: {error.strerror}") from error
  with file:
    try:
      # FFmpeg reads through the Python file, so that it needs no protocol of its own and can open nothing else.
      source = _Unnamed(file) if path.suffix.lower() in (".jpg", ".jpeg") else file
      options = {"protocol_whitelist": "none"}
      container = av.open(source, "r", metadata_errors="replace", container_options=options, hwaccel=hardware)
    except MemoryError:
      raise
    except (FFmpegError, OSError, ValueError) as error:
      raise MediaError(f"{path}: is not a media file that FFmpeg can read ({_reason(error)})") from error
    with container:
      if container.format.name in REFUSED_FORMATS:
        raise MediaError(f"{path}: is a {container.format.name} file, expected one with pictures and sound of its own")
      yield container


class _Unnamed:
  """A file that hides its name, because FFmpeg would take a numbered JPEG file for part of a series."""

  def __init__(self, file: BinaryIO) -> None:
    self.read, self.seek, self.tell = file.read, file.seek, file.tell


def video_stream(container: InputContainer, path: Path, decoding: Decoding) -> av.VideoStream:
  """Returns the stream to show: the default one or else the first, not counting cover pictures.

  Raises:
    MediaError: There is no such stream, it has no decoder, or its picture is too large.
  """
  streams = _pictures(container)
  if not streams:
    raise MediaError(f"{path}: has no video stream")
  stream = _choose_picture(streams)
  if stream is None:
    raise MediaError(f"{path}: has no decoder for its video stream")
  decoding.check(path, stream.codec_context.width, stream.codec_context.height)
  stream.thread_type = "AUTO"
  stream.codec_context.thread_count = decoding.threads
  # FFmpeg also counts the pixels that decoders add as padding.
  stream.codec_context.options = {"max_pixels": str(2 * decoding.max_pixels)}
  return stream


def _pictures(container: InputContainer) -> list[av.VideoStream]:
  return [stream for stream in container.streams.video if Disposition.attached_pic not in stream.disposition]


def _choose_picture(streams: Sequence[av.VideoStream]) -> av.VideoStream | None:
  usable = [stream for stream in streams if stream.codec_context is not None]
  return max(usable, key=lambda stream: _is(stream, "default"), default=None)


def picture_note(container: InputContainer, chosen: av.VideoStream, path: Path) -> str | None:
  """Returns a line that says which of several video streams is shown, or None if there is only one."""
  streams = _pictures(container)
  if len(streams) < 2:
    return None
  number = next(number for number, stream in enumerate(streams, 1) if stream.index == chosen.index)
  found = _programs_of(container, path)
  own = [at for at, identifiers in found.items() if chosen.id in identifiers]
  of_program = f", that of program {own[0]}" if own and len(found) > 1 else ""
  return f"picture: stream {number} of {len(streams)} is shown{of_program}"


def _programs_of(container: InputContainer, path: Path) -> dict[int, set[int]]:
  return programs(path) if container.format.name == "mpegts" else {}


def sound_stream(container: InputContainer, path: Path, decoding: Decoding = DEFAULT) -> av.AudioStream | None:
  """Returns the stream to hear: the one that was chosen, or else the default one, or else the first; None without any.

  Among several default streams, and where none is, those for people who do not see or hear well and comments come last.
  Where broadcasts send several programs, only the sound of the picture's own program is taken unasked.

  Raises:
    MediaError: There is sound, but not the stream that was chosen, or no decoder for that.
  """
  stream = _choose_sound(container, path, decoding.sound)
  if stream is not None:
    _forget_custom_layout(stream)
  return stream


def _choose_sound(container: InputContainer, path: Path, number: int | None) -> av.AudioStream | None:
  streams = container.streams.audio
  if number is not None and streams:
    if not 1 <= number <= len(streams):
      raise MediaError(f"{path}: has {counted(len(streams), 'sound stream')}, no number {number}")
    if streams[number - 1].codec_context is None:
      raise MediaError(f"{path}: has no decoder for its sound stream {number}")
    return streams[number - 1]
  usable = [stream for stream in streams if stream.codec_context is not None]
  if usable and (picture := _choose_picture(_pictures(container))) is not None:
    foreign = _foreign_streams(_programs_of(container, path), picture.id)
    usable = [stream for stream in usable if stream.id not in foreign]
  return max(usable, key=lambda stream: (_is(stream, "default"), not _is(stream, *_SPECIAL)), default=None)


def _foreign_streams(found: dict[int, set[int]], picture: int) -> set[int]:
  """Returns the identifiers of streams that belong to other programs only than the picture's stream."""
  own = {identifier for identifiers in found.values() if picture in identifiers for identifier in identifiers}
  return set().union(*found.values()) - own if own else set()


def unheard_note(container: InputContainer) -> str | None:
  """Returns a line for a file that has sound, but none that is heard, or None if it has no sound."""
  count = len(container.streams.audio)
  if not count:
    return None
  if all(stream.codec_context is None for stream in container.streams.audio):
    return "sound: there is no decoder for it"
  return f"sound: the picture's program has none, {count} of other programs not heard (see --sound-stream)"


def sound_note(container: InputContainer, chosen: av.AudioStream) -> str | None:
  """Returns a line that says which of several sound streams is heard, or None if there is only one."""
  streams = container.streams.audio
  if len(streams) < 2:
    return None
  number = next(number for number, stream in enumerate(streams, 1) if stream.index == chosen.index)
  names = [_sound_name(stream) for stream in streams]
  others = ", ".join(f"{at}: {name}" for at, name in enumerate(names, 1) if at != number)
  return f"sound: stream {number} of {len(streams)} is heard ({names[number - 1]}), not {others} (see --sound-stream)"


def _sound_name(stream: av.AudioStream) -> str:
  title = " ".join(stream.metadata.get("title", "").split())[:40]
  language = stream.metadata.get("language", "")
  special = [name.replace("_", " ") for name in _SPECIAL if _is(stream, name)]
  words = [language * (language != "und"), title, *special]
  return " ".join(word for word in words if word) or "no name"


_SPECIAL = ("comment", "visual_impaired", "hearing_impaired", "descriptions")


def _is(stream: av.AudioStream | av.VideoStream, *names: str) -> bool:
  return any(Disposition[name] in stream.disposition for name in names if name in Disposition.__members__)


def _forget_custom_layout(stream: av.AudioStream) -> None:
  """Keeps the number of a stream's channels, but not which is which, if the file lists them one by one.

  PyAV 17.1 to 18.1 frees such a list twice, for the stream and for each frame, which ends the process. The stream's
  list is therefore read only once, and then replaced.
  """
  layout = stream.codec_context.layout
  if "channels (" in layout.name or "+" in layout.name:  # as "4 channels (FL+FR+FL+FR)", unlike "5.1(side)"
    stream.codec_context.layout = f"{layout.nb_channels}C"


def decode(
  container: InputContainer,
  stream: av.VideoStream | av.AudioStream,
  notes: list[str] | None,
  name: str,
  correct: Callable[[av.Packet], None] | None = None,
) -> Iterator[av.VideoFrame | av.AudioFrame | av.Packet]:
  """Yields the frames of a stream, and a packet itself if it cannot be decoded.

  If reading fails, the rest of the file is left out.

  Args:
    container: An open file.
    stream: The stream to decode.
    notes: Receives a line if packets were damaged, and one if the file could not be read to its end.
    name: The name of the stream in notes.
    correct: Changes the time stamps of each packet before it is decoded.

  Raises:
    MemoryError: The process may not grow any more, which is not a fault of the file.
  """
  packets, damaged, stopped = container.demux(stream), 0, ""
  while True:
    try:
      packet = next(packets, None)
    except MemoryError:
      raise
    except (FFmpegError, OSError) as error:
      packet, stopped = None, _reason(error)
    given = _last_packet(stream) if stopped else packet
    if packet is not None and correct is not None:
      correct(packet)
    try:
      frames = stream.decode(given) if given is not None else []
    except MemoryError:
      raise
    except (FFmpegError, OSError):
      damaged, frames = damaged + 1, [packet] if packet is not None else []
    yield from frames
    if packet is None:
      break
  if notes is not None and damaged:
    notes.append(f"{name}: {counted(damaged, 'damaged packet')} skipped")
  if notes is not None and stopped:
    notes.append(f"{name}: the file could not be read to its end ({stopped})")


def _last_packet(stream: av.VideoStream | av.AudioStream) -> av.Packet:
  """Returns a packet that asks a decoder for the frames that it still holds; None would give them without a clock."""
  packet = av.Packet()
  packet.stream = stream
  if stream.time_base is not None:
    packet.time_base = stream.time_base
  return packet


def seconds(ticks: int | None, time_base: Fraction | None) -> float | None:
  """Returns a duration, or a time after 0, in seconds; None if the file does not state it."""
  return None if not ticks or not time_base or ticks < 0 else float(ticks * time_base)


def _reason(error: Exception) -> str:
  return getattr(error, "strerror", None) or str(error) or type(error).__name__
