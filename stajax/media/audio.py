"""The sound of media files on the clock of their pictures: sample 0 is at the time of the first frame."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError

from stajax.media.file import DEFAULT, Decoding, decode, open_media, seconds, sound_note, sound_stream, unheard_note
from stajax.media.spectrogram import SAMPLE_RATE
from stajax.media.times import Corrector, FileClock, file_clock

SOUND_TOLERANCE = 0.05  # the largest difference in seconds between a sound's time stamps and its number of samples


def audio_blocks(
  path: str | Path, notes: list[str] | None = None, decoding: Decoding = DEFAULT
) -> Iterator[np.ndarray]:
  """Yields the sound of a file as mono at 16 kHz, aligned to the first frame: sample 0 is at time 0.

  A late start is preceded by silence, sound before time 0 is cut, and parts that cannot be decoded are silent. Nothing
  is yielded if there is no sound or none of it can be decoded. Samples have 16 bits, as in VGGSound's preparation.
  Without a picture, time 0 is that of the first sample.

  Args:
    path: The media file.
    notes: Receives a line for each thing that had to be left out.
    decoding: The limits of the decoder of the first frame.

  Yields:
    Blocks (n,) float32 in [-1, 1), n > 0.

  Raises:
    MediaError: The file cannot be opened.
  """
  for block in aligned_sound(path, SAMPLE_RATE, "mono", notes, decoding):
    yield block[0].astype(np.float32) / 32768


def aligned_sound(
  path: str | Path, rate: int, layout: str, notes: list[str] | None = None, decoding: Decoding = DEFAULT
) -> Iterator[np.ndarray]:
  """Yields the same sound as `audio_blocks` at any rate and in any channel layout, in blocks (channels, n) int16.

  Sound of a kind that cannot be used ends with a note, because the picture still can.
  """
  path = Path(path)
  clock = file_clock(path, decoding)
  with open_media(path) as container:
    stream = sound_stream(container, path, decoding)
    if stream is None:
      if notes is not None and (note := unheard_note(container)) is not None:
        notes.append(note)
      return
    if notes is not None and (note := sound_note(container, stream)) is not None:
      notes.append(note)
    track, lost_until = _AlignedTrack(rate, layout, clock), 0.0
    try:
      for item in decode(container, stream, notes, "sound", Corrector(clock.sound)):
        if isinstance(item, av.AudioFrame):
          yield from track.add(item)
        elif isinstance(item, av.Packet):  # a packet that could not be decoded
          lost_until = (seconds(item.pts, item.time_base) or 0.0) + (seconds(item.duration, item.time_base) or 0.0)
    except (FFmpegError, ValueError) as error:
      if notes is not None:
        notes.append(f"sound: {stream.codec_context.name} of this kind cannot be used ({error})")
      return
    yield from track.finish(lost_until)
    if not track.has_begun and notes is not None:
      notes.append("sound: nothing of it can be decoded")


class _AlignedTrack:
  """Joins sound frames on the clock of the file, even if their times have gaps or repetitions."""

  def __init__(self, rate: int, layout: str, clock: FileClock) -> None:
    """Makes an empty track.

    Args:
      rate: The number of samples per second.
      layout: FFmpeg's name of the channel layout.
      clock: The clock of the file.
    """
    self._track, self._rate, self._clock = _Track(rate, layout), rate, clock
    self._base = clock.origin or 0.0  # the time of sample 0 on the file's clock
    self._position: float | None = None  # the end of the sound so far, in seconds on the file's clock

  @property
  def has_begun(self) -> bool:
    """Whether a frame has been added."""
    return self._position is not None

  def add(self, frame: av.AudioFrame) -> Iterator[np.ndarray]:
    """Yields the blocks that a decoded frame completes."""
    if self._position is None:
      known = self._base if self._clock.sound.start is None else self._clock.sound.start
      self._position = known if frame.time is None else frame.time
      yield from self._begin(self._position)
    position = self._position
    start = position if frame.time is None or frame.time > self._clock.believed + 1 else frame.time
    if start - position < -SOUND_TOLERANCE:  # this frame repeats a moment
      return
    if start - position > SOUND_TOLERANCE:
      yield from self._track.flush()
      yield from self._track.fill(self._sample_at(start))
      position = start
    yield from self._track.add(frame)
    self._position = position + frame.samples / frame.sample_rate

  def finish(self, lost_until: float) -> Iterator[np.ndarray]:
    """Yields the rest, and silence for sound lost at the end, up to a time on the file's clock in seconds."""
    yield from self._track.flush()
    lost_until = min(lost_until, self._clock.believed)
    if self._position is not None and lost_until - self._position > SOUND_TOLERANCE:
      yield from self._track.fill(self._sample_at(lost_until))

  def _begin(self, start: float) -> Iterator[np.ndarray]:
    if self._clock.origin is None:
      self._base = start
    self._track.length = min(0, self._sample_at(start))
    yield from self._track.fill(self._sample_at(start))

  def _sample_at(self, time: float) -> int:
    return round((time - self._base) * self._rate)


class _Track:
  """Joins sound frames and silence; samples before the start (`length` below 0) are dropped."""

  def __init__(self, rate: int, layout: str) -> None:
    self.rate, self.layout, self.length = rate, layout, 0
    self._resampler: av.AudioResampler | None = None
    self._source: tuple[str, str, int] | None = None
    self._packer: av.AudioResampler | None = (
      None  # if the channels have no known places, so that FFmpeg cannot mix them
    )

  def add(self, frame: av.AudioFrame) -> Iterator[np.ndarray]:
    source = (frame.format.name, frame.layout.name, frame.sample_rate)
    if self._resampler is None or source != self._source:  # some broadcasts change from stereo to 5.1
      yield from self.flush()
      self._resampler, self._source = av.AudioResampler("s16p", self.layout, self.rate), source
      self._packer = None
      if "channels" in frame.layout.name or "ambisonic" in frame.layout.name:
        self._packer = _packer(frame)
    try:
      parts = self._resampled(frame)
    except (FFmpegError, ValueError):
      if self._packer is not None:
        raise
      self._packer, self._resampler = _packer(frame), av.AudioResampler("s16p", self.layout, self.rate)
      parts = self._resampled(frame)
    for part in parts:
      yield from self._place(part.to_ndarray())

  def _resampled(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
    assert self._resampler is not None
    frames = [frame] if self._packer is None else [mixed(packed) for packed in self._packer.resample(frame)]
    return [part for one in frames for part in self._resampler.resample(one)]

  def flush(self) -> Iterator[np.ndarray]:
    """Yields what the resampler still holds; the next frame gets a fresh one."""
    resampler, self._resampler = self._resampler, None
    for part in resampler.resample(None) if resampler is not None else []:
      yield from self._place(part.to_ndarray())

  def fill(self, length: int) -> Iterator[np.ndarray]:
    """Yields silence up to a length in samples, in blocks of at most a second."""
    channels = av.AudioLayout(self.layout).nb_channels
    while self.length < length:
      yield from self._place(np.zeros((channels, min(self.rate, length - self.length)), np.int16))

  def _place(self, block: np.ndarray) -> Iterator[np.ndarray]:
    kept = block[:, max(0, -self.length) :]
    self.length += block.shape[1]
    if kept.size:
      yield kept


def _packer(frame: av.AudioFrame) -> av.AudioResampler:
  """Returns what turns frames like one into floats of one plane, since PyAV reads beyond the end of many planes."""
  return av.AudioResampler("flt", frame.layout.name, frame.sample_rate)


def mixed(frame: av.AudioFrame) -> av.AudioFrame:
  """Returns one channel of packed floats: ambisonic sound's first one, which has all directions; else all's mean."""
  samples = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
  mono = samples[:, 0] if frame.layout.name.startswith("ambisonic") else samples.mean(axis=1, dtype=np.float64)
  result = av.AudioFrame.from_ndarray(np.ascontiguousarray(mono[None], np.float32), format="fltp", layout="mono")
  result.sample_rate, result.pts, result.time_base = frame.sample_rate, frame.pts, frame.time_base
  return result
