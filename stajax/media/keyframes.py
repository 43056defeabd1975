"""A few short runs of frames from all over a video, found without decoding what lies between them."""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from stajax.media.file import Decoding, open_media, video_stream
from stajax.media.video import DEFAULT, GRID_TOLERANCE, Deinterlacer, Picture

RUN = 3
"""Frames of a run."""
MAX_PACKETS = 1024  # of a run, where times are missing or damaged


def sampled_runs(
  path: str | Path, origin: float, count: int, spacing: float, side: int, seed: int, decoding: Decoding = DEFAULT
) -> list[tuple[float, list[np.ndarray]]]:
  """Runs of three frames, each of which begins with a keyframe, since nowhere else a decoder can begin.

  The file is read once, and only the packets of runs are decoded: of all keyframes `count` are drawn evenly, and it
  need not be known how many there are (Vitter's algorithm R). Where every frame is a keyframe those that lie in a run
  do not begin another. This takes no index and no seeking, so that it costs about a reading of the file in any
  container; some `count` · (1 + log(keyframes / count)) runs are decoded.

  Args:
    origin: of `stajax.media.video.MediaInfo`.
    count: most runs.
    spacing: of the frames of a run, seconds.
    side: frames are squashed to side × side pixels.
    seed: of the draw.
    decoding: what the decoder may take.

  Returns:
    In order of time: seconds from the video's first frame to the run's middle one, three frames (side, side, 3) uint8
    RGB. Of a video that is damaged or cannot be read to its end, what can be had.

  Raises:
    MediaError: the file cannot be opened.
  """
  path, rng = Path(path), np.random.default_rng(seed)
  runs: dict[int, tuple[float, list[np.ndarray]]] = {}
  with open_media(path) as container:
    stream = video_stream(container, path, decoding)
    number, begun, slot, packets = 0, 0.0, 0, []

    def finish() -> None:
      found = _decode(stream, packets, begun, spacing, side, path, decoding)
      if found is not None:
        runs[slot] = (begun + spacing - origin, found)
      packets.clear()

    demuxed = container.demux(stream)
    while True:
      try:
        packet = next(demuxed, None)
      except (av.FFmpegError, OSError):
        packet = None
      if packet is None or packet.size == 0:
        break
      time = _time(packet)
      is_over = time is not None and time > begun + (RUN - 1) * spacing + GRID_TOLERANCE
      if packets and (is_over or len(packets) == MAX_PACKETS):
        finish()
      if packets:
        packets.append(packet)
      elif packet.is_keyframe and time is not None:
        slot = number if number < count else int(rng.integers(number + 1))
        number += 1
        if slot < count:
          begun, packets = time if packet.pts is None else float(packet.pts * packet.time_base), [packet]
    if packets:
      finish()
  return sorted(runs.values(), key=lambda run: run[0])


def _time(packet: av.Packet) -> float | None:
  """When it is decoded, on the file's clock: no frame is shown earlier than that."""
  ticks = packet.pts if packet.dts is None else packet.dts
  return None if ticks is None or packet.time_base is None else float(ticks * packet.time_base)


def _decode(
  stream: av.VideoStream,
  packets: Sequence[av.Packet],
  begun: float,
  spacing: float,
  side: int,
  path: Path,
  decoding: Decoding,
) -> list[np.ndarray] | None:
  """The frames that are shown at the times of a run; None if there is none."""
  stream.codec_context.flush_buffers()
  frames, times, whole = [], [], []
  deinterlacer, picture = Deinterlacer(decoding.threads), Picture((side, side), decoding.threads)
  for packet in (*packets, None):
    try:
      frames += stream.decode(packet)
    except (av.FFmpegError, OSError):
      continue
  stream.codec_context.flush_buffers()
  for frame in frames:
    decoding.check(path, frame.width, frame.height)
    # Not `frame.time`, which the last frames that a decoder gives do not have.
    time = None if frame.pts is None else float(frame.pts * packets[0].time_base)
    # Frames before the keyframe may refer to what was not decoded.
    if time is not None and time >= begun - GRID_TOLERANCE:
      times.append(time)
      whole += deinterlacer.add(frame)
  whole += deinterlacer.finish()
  if not times:
    return None
  at = np.searchsorted(times, begun + np.arange(RUN) * spacing + GRID_TOLERANCE, "right") - 1
  return [picture.of(whole[max(i, 0)]) for i in at]
