"""Decodes a few short runs of frames from all over a video, without decoding the frames between them."""

from collections.abc import Iterator
from math import inf
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError

from stajax.media.crop import Crop, Cropper, read_crop
from stajax.media.file import DEFAULT, Decoding, open_media, video_stream
from stajax.media.picture import Deinterlacer, FrameConverter
from stajax.media.times import Corrector, file_clock
from stajax.media.video import GRID_TOLERANCE

RUN = 3
"""The number of frames of a run."""
MAX_PACKETS = 1024  # the largest number of packets of a run, for files whose times are missing or damaged


def sampled_runs(
  path: str | Path, count: int, spacing: float, side: int, seed: int, decoding: Decoding = DEFAULT
) -> list[tuple[float, list[np.ndarray]]]:
  """Returns runs of three frames, each of which begins at a keyframe, where a decoder can start.

  The file is read once, and only the packets of runs are decoded. Vitter's algorithm R draws `count` of all keyframes
  evenly without knowing their number. If every frame is a keyframe, those inside a run do not begin another. Without an
  index or seeking, this costs about one reading of the file in any container; about
  `count` · (1 + log(keyframes / count)) runs are decoded.

  Args:
    path: The video file.
    count: The largest number of runs.
    spacing: The time between frames of a run in seconds.
    side: Frames are squashed to side × side pixels.
    seed: The seed of the draw.
    decoding: The limits of the decoder.

  Returns:
    For each run, in order of time: the seconds from the video's first frame to the run's middle one, and three frames
    (side, side, 3) uint8 RGB. A video that is damaged or cannot be read to its end may give fewer runs.

  Raises:
    MediaError: The file cannot be opened.
  """
  path, rng = Path(path), np.random.default_rng(seed)
  runs: dict[int, tuple[float, list[np.ndarray]]] = {}
  clock = file_clock(path, decoding)
  with open_media(path) as container:
    stream = video_stream(container, path, decoding)
    crop = read_crop(path, container.streams.video.index(stream))
    decoder = _RunDecoder(stream, path, crop, spacing, side, decoding)
    slot, number = 0, 0  # the slot of the current run, and the number of runs so far
    begun, packets = 0.0, []

    def finish_run() -> None:
      found = decoder.decode(packets, begun)
      if found is not None:
        runs[slot] = (begun + spacing - (clock.origin or 0.0), found)
      packets.clear()

    for packet in _packets(container, stream, Corrector(clock.picture)):
      time = _time(packet)
      is_over = time is not None and time > begun + (RUN - 1) * spacing + GRID_TOLERANCE
      if packets and (is_over or len(packets) == MAX_PACKETS):
        finish_run()
      if packets:
        packets.append(packet)
      elif packet.is_keyframe and time is not None:
        slot = number if number < count else int(rng.integers(number + 1))
        number += 1
        if slot < count:
          begun, packets = inf, [packet]
      if packets and begun == inf and time is not None and not packet.is_discard:
        begun = _presentation_time(packet, time)  # edit lists may hide the keyframe itself
    if packets:
      finish_run()
  return sorted(runs.values(), key=lambda run: run[0])


def _packets(container: InputContainer, stream: av.VideoStream, correct: Corrector) -> Iterator[av.Packet]:
  """Yields the packets of a stream on the clock of the file, up to where it can be read."""
  demuxed = container.demux(stream)
  while True:
    try:
      packet = next(demuxed, None)
    except (FFmpegError, OSError):
      return
    if packet is None or packet.size == 0:
      return
    correct(packet)
    yield packet


def _time(packet: av.Packet) -> float | None:
  """Returns the time when a packet is decoded, on the file's clock; no frame is shown earlier."""
  ticks = packet.pts if packet.dts is None else packet.dts
  return None if ticks is None or packet.time_base is None else float(ticks * packet.time_base)


def _presentation_time(packet: av.Packet, otherwise: float) -> float:
  return otherwise if packet.pts is None or packet.time_base is None else float(packet.pts * packet.time_base)


class _RunDecoder:
  """Decodes the frames of runs."""

  def __init__(
    self, stream: av.VideoStream, path: Path, crop: Crop, spacing: float, side: int, decoding: Decoding
  ) -> None:
    self._crop, self._stream, self._path, self._spacing, self._side, self._decoding = (
      crop,
      stream,
      path,
      spacing,
      side,
      decoding,
    )

  def decode(self, packets: list[av.Packet], begun: float) -> list[np.ndarray] | None:
    """Returns the frames that are shown at the times of a run, or None if there are none.

    Args:
      packets: The packets of the run, at least one.
      begun: The time of the run's first frame on the file's clock in seconds.
    """
    deinterlacer, cropper = Deinterlacer(self._decoding.threads), Cropper(self._crop)
    converter = FrameConverter((self._side, self._side), self._decoding.threads)
    times, whole = [], []
    # Without presentation times, frames are shown in the order in which their packets are decoded.
    decoded = None if any(packet.pts is not None for packet in packets) else iter([_time(packet) for packet in packets])
    for frame in self._frames(packets):
      self._decoding.check(self._path, frame.width, frame.height)
      # This is not `frame.time`, because the last frames of a decoder lack it.
      time = None if frame.pts is None else float(frame.pts * packets[0].time_base)
      time = time if decoded is None else next(decoded, None)
      # Frames before the keyframe may refer to frames that were not decoded.
      if time is not None and time >= begun - GRID_TOLERANCE:
        times.append(time)
        whole += deinterlacer.add(cropper.cut(frame))
    whole += deinterlacer.finish()
    if not times:
      return None
    shown = np.searchsorted(times, begun + np.arange(RUN) * self._spacing + GRID_TOLERANCE, "right") - 1
    return [converter.convert(whole[max(i, 0)]) for i in shown.tolist()]

  def _frames(self, packets: list[av.Packet]) -> list[av.VideoFrame]:
    """Returns all frames that can be decoded from some packets, independently of earlier packets."""
    frames: list[av.VideoFrame] = []
    self._stream.codec_context.flush_buffers()
    for packet in (*packets, None):
      try:
        frames += self._stream.decode(packet)
      except (FFmpegError, OSError):
        continue
    self._stream.codec_context.flush_buffers()
    return frames
