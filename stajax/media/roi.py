"""Regions of interest of frames that are encoded: x264 and x265 change the quantisation there."""

from collections.abc import Sequence

import av
import av.filter
from av.video.format import VideoFormat

Region = tuple[int, int, int, int, int]
"""x, y, width and height in pixels, and what is added to the quantisation parameter, from -51 to 51."""

_QP_RANGE = 51  # of the offset that FFmpeg's filter `addroi` takes as 1


class RegionMarker:
  """Marks regions in frames. Where regions overlap, the first one counts."""

  def __init__(self) -> None:
    self._key: object = None
    self._graph: av.filter.Graph | None = None

  def mark(self, frame: av.VideoFrame, regions: Sequence[Region]) -> av.VideoFrame:
    """Returns the frame with its regions as side data, which encoders read."""
    if not regions:
      return frame
    key = (*regions,), frame.width, frame.height, frame.format.name
    if self._graph is None or key != self._key:
      self._key, self._graph = key, _make_graph(frame.width, frame.height, frame.format, frame, regions)
    self._graph.push(frame)
    return self._graph.vpull()


def _make_graph(
  width: int, height: int, pixels: VideoFormat, frame: av.VideoFrame, regions: Sequence[Region]
) -> av.filter.Graph:
  graph = av.filter.Graph()
  last = graph.add_buffer(width=width, height=height, format=pixels, time_base=frame.time_base)
  for x, y, w, h, offset in regions:
    filter_ = graph.add("addroi", f"x={x}:y={y}:w={w}:h={h}:qoffset={offset}/{_QP_RANGE}")
    last.link_to(filter_)
    last = filter_
  last.link_to(graph.add("buffersink"))
  graph.configure()
  return graph
