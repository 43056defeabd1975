"""Brings decoded frames upright: turned and mirrored as the display matrix of the file asks for."""

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.sidedata import sidedata


@dataclass(frozen=True)
class Orientation:
  """What a decoded frame needs to be shown upright, in this order.

  Attributes:
    is_transposed: Whether rows and columns are exchanged.
    flips_columns: Whether left and right are exchanged then.
    flips_rows: Whether top and bottom are exchanged then.
  """

  is_transposed: bool = False
  flips_columns: bool = False
  flips_rows: bool = False

  def size(self, first: int, second: int) -> tuple[int, int]:
    """Returns the two sides of a picture as they are shown."""
    return (second, first) if self.is_transposed else (first, second)

  def aspect(self, aspect: Fraction) -> Fraction:
    """Returns a pixel's width over its height as it is shown."""
    return 1 / aspect if self.is_transposed else aspect

  def show(self, picture: np.ndarray) -> np.ndarray:
    """Returns a picture (h, w, 3) upright, contiguous in memory."""
    if self.is_transposed:
      picture = picture.swapaxes(0, 1)
    if self.flips_columns:
      picture = picture[:, ::-1]
    if self.flips_rows:
      picture = picture[::-1]
    return np.ascontiguousarray(picture)


UPRIGHT = Orientation()


def orientation(frame: av.VideoFrame) -> Orientation:
  """Returns the orientation of a decoded frame; an oblique angle counts as the nearest of the eight orientations."""
  matrix = display_matrix(frame)
  return UPRIGHT if matrix is None else from_matrix(matrix)


def display_matrix(frame: av.VideoFrame) -> np.ndarray | None:
  """Returns the display matrix (3, 3) int32 of a frame as FFmpeg stores it, or None if it has none."""
  data = side_data(frame).get("DISPLAYMATRIX")
  if data is None or data.buffer_size < 36:
    return None
  return np.frombuffer(bytes(data)[:36], np.int32).reshape(3, 3)


def side_data(frame: av.VideoFrame) -> sidedata.SideDataContainer:
  """Returns what else a decoded frame carries.

  The frame would keep `frame.side_data`, and that would keep the frame, so pictures of hundreds of frames would stay in
  memory until Python looks for such circles.
  """
  return sidedata.SideDataContainer(frame)  # pyright: ignore[reportCallIssue] # its constructor has no stub


def _unknown_type(cls: type[sidedata.Type], value: object) -> sidedata.Type:
  member = object.__new__(cls)
  member._name_, member._value_ = f"UNKNOWN_{value}", value
  return member


# PyAV raises ValueError at the side data of a frame if FFmpeg knows a type that PyAV does not, as that of EXIF.
sidedata.Type._missing_ = classmethod(_unknown_type)  # pyright: ignore[reportAttributeAccessIssue]


def from_matrix(matrix: np.ndarray) -> Orientation:
  """Returns the orientation nearest to a display matrix.

  A pixel at (x, y) is shown at (a x + c y, b x + d y), where the matrix is [[a, b, u], [c, d, v], …], as
  libavutil/display.h defines it. Only the signs and the larger diagonal matter, because sizes are scaled elsewhere. A
  matrix without extent changes nothing.
  """
  (a, b), (c, d) = matrix[:2, :2].astype(np.int64).tolist()
  if abs(a) + abs(d) >= abs(b) + abs(c):
    return Orientation(False, a < 0, d < 0)
  return Orientation(True, c < 0, b < 0)
