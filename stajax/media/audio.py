"""The sound of media files, on the clock of their pictures: sample 0 is at the first frame's time."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from stajax.media.file import MAX_GAP, Decoding, decode, open_media, seconds, sound_stream
from stajax.media.video import DEFAULT, MAX_STEP_BACK, first_frame_time

SAMPLE_RATE = 16000
SOUND_TOLERANCE = 0.05  # seconds of disagreement between a sound's time stamps and its sample count


def audio_blocks(
  path: str | Path, notes: list[str] | None = None, decoding: Decoding = DEFAULT
) -> Iterator[np.ndarray]:
  """The sound of a file as mono at 16 kHz, aligned to the first frame: sample 0 is at time 0.

  A late start is preceded by silence, an early one is cut, what cannot be decoded is silent. Nothing is yielded where
  there is no sound or none of it can be decoded. Samples have 16 bits, as in VGGSound's preparation. A file without
  a picture starts at its first sample.

  Args:
    notes: receives a line for each thing that had to be left out.
    decoding: what the decoder of the first frame may take.

  Yields:
    Blocks (n,) float32 in [-1, 1), n > 0.

  Raises:
    MediaError: the file cannot be opened.
  """
  for block in aligned_sound(path, SAMPLE_RATE, "mono", notes, decoding):
    yield block[0].astype(np.float32) / 32768


def aligned_sound(
  path: str | Path, rate: int, layout: str, notes: list[str] | None = None, decoding: Decoding = DEFAULT
) -> Iterator[np.ndarray]:
  """As `audio_blocks` for any rate and channel layout: blocks (channels, n) int16."""
  path = Path(path)
  base = first_frame_time(path, decoding)
  with open_media(path) as container:
    stream = sound_stream(container)
    if stream is None:
      return
    track = _Track(rate, layout)
    position = None  # where the sound so far ends, seconds on the file's clock, as `base`
    lost_until = 0.0
    for item in decode(container, stream, notes, "sound"):
      if isinstance(item, av.Packet):  # could not be decoded
        lost_until = (seconds(item.pts, item.time_base) or 0.0) + (seconds(item.duration, item.time_base) or 0.0)
        continue
      start = item.time if item.time is not None else position if position is not None else base or 0.0
      if position is None:
        if base is None or abs(start - base) > MAX_GAP:
          base = start
        track.length = min(0, round((start - base) * rate))
        yield from track.fill(round((start - base) * rate))
        position = start
      gap = start - position
      if gap > MAX_GAP or gap < -MAX_STEP_BACK:  # another clock: go on without a gap
        base, position = base + gap, start
      elif gap < -SOUND_TOLERANCE:  # the same moment a second time
        continue
      elif gap > SOUND_TOLERANCE:
        yield from track.flush()
        yield from track.fill(round((start - base) * rate))
        position = start
      yield from track.add(item)
      position += item.samples / item.sample_rate
    yield from track.flush()
    if position is None and notes is not None:
      notes.append("sound: nothing of it can be decoded")
    if position is not None and SOUND_TOLERANCE < lost_until - position <= MAX_GAP:
      yield from track.fill(round((lost_until - base) * rate))


class _Track:
  """Joins sound frames and silence; samples before the start (`length` below 0) are dropped."""

  def __init__(self, rate: int, layout: str):
    self.rate, self.layout, self.length = rate, layout, 0
    self.resampler, self.source = None, None

  def add(self, frame: av.AudioFrame) -> Iterator[np.ndarray]:
    source = (frame.format.name, frame.layout.name, frame.sample_rate)
    if source != self.source:  # some broadcasts change from stereo to 5.1
      yield from self.flush()
      self.resampler, self.source = av.AudioResampler("s16p", self.layout, self.rate), source
    for part in self.resampler.resample(frame):
      yield from self._place(part.to_ndarray())

  def flush(self) -> Iterator[np.ndarray]:
    resampler, self.resampler, self.source = self.resampler, None, None
    for part in resampler.resample(None) if resampler is not None else []:
      yield from self._place(part.to_ndarray())

  def fill(self, length: int) -> Iterator[np.ndarray]:
    """Silence up to a length in samples, in blocks of at most a second."""
    channels = av.AudioLayout(self.layout).nb_channels
    while self.length < length:
      yield from self._place(np.zeros((channels, min(self.rate, length - self.length)), np.int16))

  def _place(self, block: np.ndarray) -> Iterator[np.ndarray]:
    kept = block[:, max(0, -self.length) :]
    self.length += block.shape[1]
    if kept.size:
      yield kept
