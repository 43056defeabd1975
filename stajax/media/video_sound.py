"""Adds the sound of an original to an mp4 file that has only the picture."""

import contextlib
import io
import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError

from stajax.media.audio import aligned_sound
from stajax.media.file import MediaError, open_media, sound_stream
from stajax.media.times import file_clock
from stajax.media.video import MediaInfo

_COPIED_CODECS = {"aac", "ac3", "alac", "eac3", "mp3", "opus"}
"""The codecs of sound that mp4 files can hold unchanged; other sound becomes AAC."""
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_TRIAL_PACKETS = 20
_FAULTS = (FFmpegError, ValueError, MediaError)
"""The exceptions of sound that cannot be read or written."""

SoundPackets = Iterator[tuple[float, av.Packet]]
"""Sound packets, each with its start in seconds."""


def add_sound(picture: Path, info: MediaInfo, target: Path, notes: list[str]) -> Iterator[float]:
  """Writes an mp4 with the picture of one file and the sound of another.

  Sound packets are copied if mp4 can hold them and the clock of the original has no steps, otherwise encoded as AAC.
  Sound that cannot be written is left out with a note.

  Args:
    picture: An mp4 file without sound.
    info: The original, as `stajax.media.video.probe` found it; its first frame is at time 0 of the picture.
    target: The file to write.
    notes: Receives a line if sound had to be left out.

  Yields:
    The time in seconds that has been written, now and then.

  Raises:
    OSError: The file cannot be written.
  """
  reason = ""
  for with_sound in (True, False):
    with av.open(str(picture)) as source, open_mp4(target) as container:
      shown = container.add_stream_from_template(source.streams.video[0])
      try:
        sound = _open_sound(container, info) if with_sound else iter(())
        container.start_encoding()
      except _FAULTS as error:
        if not with_sound:
          raise
        reason = f"written without sound, which mp4 does not accept ({error})"
        continue
      waiting: tuple[float, av.Packet] | None = None
      for packet in source.demux(video=0):
        if packet.dts is None:
          continue
        time = float(packet.dts * packet.time_base)
        try:
          waiting = waiting or next(sound, None)
          while waiting is not None and waiting[0] <= time:
            container.mux(waiting[1])
            waiting = next(sound, None)
        except _FAULTS as error:
          notes.append(f"sound: not complete in the overlay ({error})")
          sound, waiting = iter(()), None
        packet.stream = shown
        container.mux(packet)
        yield time
      yield from _mux_rest(container, sound, waiting, notes)
    break
  if reason:
    notes.append(f"sound: {reason}")


def open_mp4(path: Path) -> OutputContainer:
  """Opens an mp4 file for writing."""
  target = str(path.absolute())  # because a relative name could be taken for a protocol
  return av.open(target, "w", format="mp4", container_options={"movflags": "+faststart"})


def _mux_rest(
  container: OutputContainer, sound: SoundPackets, waiting: tuple[float, av.Packet] | None, notes: list[str]
) -> Iterator[float]:
  """Writes the sound that goes on after the last frame began."""
  try:
    for time, packet in itertools.chain([waiting] if waiting else [], sound):
      container.mux(packet)
      yield time
  except _FAULTS as error:
    notes.append(f"sound: not complete in the overlay ({error})")


def _open_sound(container: OutputContainer, info: MediaInfo) -> SoundPackets:
  with _open_sound_stream(info) as (_, stream):
    codec = stream.codec_context.codec.canonical_name
    if codec in _COPIED_CODECS and file_clock(info.path, info.decoding).sound.is_plain and _can_copy(info):
      return _copied_packets(info, container.add_stream_from_template(stream))
    rate = stream.sample_rate if stream.sample_rate in _AAC_RATES else 48000
    layout = "mono" if stream.channels == 1 else "stereo"
  return _encoded_packets(info, container.add_stream("aac", rate=rate, layout=layout))


@contextlib.contextmanager
def _open_sound_stream(info: MediaInfo) -> Iterator[tuple[InputContainer, av.AudioStream]]:
  with open_media(info.path) as container:
    stream = sound_stream(container, info.path, info.decoding)
    if stream is None:
      raise MediaError(f"{info.path}: has no sound")
    yield container, stream


def _copied_packets(info: MediaInfo, target: av.AudioStream) -> SoundPackets:
  """Yields the sound packets of the original, shifted to the picture's time 0."""
  with _open_sound_stream(info) as (container, stream):
    base = stream.time_base or Fraction(1, stream.sample_rate)
    shift, before = round(info.origin / base), None
    for packet in container.demux(stream):
      if packet.pts is None or packet.dts is None or packet.size == 0:
        continue
      packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
      start, duration = float(packet.pts * base), float((packet.duration or 0) * base)
      # mp4 accepts only increasing times; sound that ends before the picture begins is cut.
      if (before is not None and packet.dts <= before) or start + duration <= 0:
        continue
      before = packet.dts
      packet.stream = target
      yield start, packet


def _can_copy(info: MediaInfo) -> bool:
  """Tries to write the beginning of the sound, because a damaged header shows only when the file is closed."""
  num_packets = 0
  try:
    with _open_sound_stream(info) as (_, stream), av.open(io.BytesIO(), "w", format="mp4") as trial:
      target = trial.add_stream_from_template(stream)
      for _, packet in itertools.islice(_copied_packets(info, target), _TRIAL_PACKETS):
        trial.mux(packet)
        num_packets += 1
  except _FAULTS:
    return False
  return num_packets > 0


def _encoded_packets(info: MediaInfo, target: av.AudioStream) -> SoundPackets:
  """Yields the sound of the original as AAC packets."""
  rate, layout, length = target.sample_rate, target.layout.name, 0

  def with_starts(packets: list[av.Packet]) -> SoundPackets:
    for packet in packets:
      yield float((packet.pts or 0) * (packet.time_base or Fraction(1, rate))), packet

  for block in aligned_sound(info.path, rate, layout, decoding=info.decoding):
    samples = np.ascontiguousarray(block.T).reshape(1, -1)  # because "s16" interleaves the channels
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, length, Fraction(1, rate)
    length += block.shape[1]
    yield from with_starts(target.encode(frame))
  yield from with_starts(target.encode(None))
