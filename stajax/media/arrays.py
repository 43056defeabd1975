"""Frames and sound that are given as arrays, in the form in which files are decoded."""

from collections.abc import Iterable, Iterator

import av
import numpy as np

from stajax.media.picture import FrameConverter
from stajax.media.spectrogram import SAMPLE_RATE

_BLOCK = 2**16  # the number of samples that are resampled at a time


def squashed(frames: Iterable[tuple[float, np.ndarray]], side: int) -> Iterator[tuple[float, np.ndarray]]:
  """Yields frames with their times, squashed as those of files are; a frame that comes again is converted once.

  Args:
    frames: The time of each in seconds, and the frame (H, W, 3) uint8 RGB.
    side: They are squashed to side × side pixels.
  """
  converter = FrameConverter((side, side), 0)
  last: tuple[np.ndarray, av.VideoFrame] | None = None
  for time, frame in frames:
    if last is None or last[0] is not frame:
      last = frame, av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    yield time, converter.convert(last[1])


def sound_blocks(samples: np.ndarray, rate: int) -> Iterator[np.ndarray]:
  """Yields sound as `stajax.media.audio.audio_blocks` does: mono at 16 kHz, of 16 bits, in blocks (n,) float32.

  Args:
    samples: (n,) or (n, channels), float in [-1, 1], int16 or int32; channels are averaged.
    rate: Samples a second.
  """
  scale = 1.0 if samples.dtype.kind == "f" else float(-np.iinfo(samples.dtype).min)
  resampler = av.AudioResampler("s16p", "mono", SAMPLE_RATE)

  def converted(frame: av.AudioFrame | None) -> Iterator[np.ndarray]:
    for part in resampler.resample(frame):
      yield part.to_ndarray()[0].astype(np.float32) / 32768

  for start in range(0, len(samples), _BLOCK):
    block = samples[start : start + _BLOCK].astype(np.float32) / np.float32(scale)
    mono = block if block.ndim == 1 else block.mean(axis=1)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(mono[None]), format="fltp", layout="mono")
    frame.sample_rate = rate
    yield from converted(frame)
  yield from converted(None)
