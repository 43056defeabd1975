"""Deinterlaces decoded frames and turns them into arrays."""

from collections.abc import Iterator
from fractions import Fraction

import av
import av.filter
import numpy as np
from av import error
from av.video.reformatter import Interpolation

from stajax.media.colour import RgbConverter
from stajax.media.orientation import orientation

_CLOCK = Fraction(1, 1000)  # the clock of the deinterlacing filter, which does not read the times of frames


class FrameConverter:
  """Turns decoded frames into upright RGB arrays of one size; a frame that is shown again is converted only once."""

  def __init__(self, size: tuple[int, int] | None, threads: int) -> None:
    """Makes a converter.

    Args:
      size: (height, width) that frames are squashed to; None for the size of the first frame as it is displayed.
      threads: The number of threads that convert.
    """
    self._size, self._converter = size, RgbConverter(threads)
    self._last: tuple[av.VideoFrame, np.ndarray] | None = None

  def convert(self, frame: av.VideoFrame) -> np.ndarray:
    """Returns a frame as (h, w, 3) uint8; the same frame as before gives the same array."""
    if self._last is not None and frame is self._last[0]:
      return self._last[1]
    upright = orientation(frame)
    if self._size is None:  # a stream may change its size, but the first frame's size is kept
      self._size = upright.size(frame.height, frame.width)
    height, width = upright.size(*self._size)
    shrinks = width <= frame.width and height <= frame.height and (width, height) != (frame.width, frame.height)
    interpolation = Interpolation.AREA if shrinks else Interpolation.BICUBIC
    array = upright.show(self._converter.convert(frame, width, height, interpolation))
    self._last = frame, array
    return array


class Deinterlacer:
  """Turns each interlaced frame into a whole one; the other frames pass unchanged.

  Attributes:
    num_frames: The number of frames that were added.
  """

  MIN_SIDE = 4  # pixels, because FFmpeg's filter takes no smaller picture

  def __init__(self, threads: int) -> None:
    """Makes a deinterlacer with a number of threads."""
    self._threads, self.num_frames = threads, 0
    self._graph: av.filter.Graph | None = None
    self._source: tuple[int, int, str] | None = None

  def add(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
    """Yields the frames that are whole now; interlaced frames come out later than they went in."""
    self.num_frames += 1
    source = (frame.width, frame.height, frame.format.name)
    if self._graph is not None and source != self._source:
      yield from self.finish()
    if self._graph is None and not (frame.interlaced_frame and min(source[:2]) >= self.MIN_SIDE):
      yield frame
      return
    if self._graph is None:
      self._graph, self._source = self._make_graph(frame), source
    frame.pts = None  # the filter would compare times, which may be damaged
    self._graph.push(frame)
    yield from _pull(self._graph)

  def finish(self) -> Iterator[av.VideoFrame]:
    """Yields the frames that it still holds."""
    graph, self._graph = self._graph, None
    if graph is not None:
      graph.push(None)
      yield from _pull(graph)

  def _make_graph(self, frame: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.threads = self._threads
    buffer = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=_CLOCK)
    deinterlacer = graph.add("bwdif", "mode=send_frame:deint=interlaced")
    graph.link_nodes(buffer, deinterlacer, graph.add("buffersink")).configure()
    return graph


def _pull(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
  while True:
    try:
      yield graph.vpull()
    except (error.BlockingIOError, error.EOFError):
      return
