"""The units of tables of fixations: what a user states, and what the values of a table tell about them.

Foreign tables come in many units: shares of the picture, pixels of a screen, milliseconds, an origin at the bottom. A
wrong guess gives plausible scores of nothing. Therefore nothing is guessed: without options a table is read as pixels
of the picture and seconds, and refused if its values contradict that; the message names the likely unit and the option
that states it. A unit that was stated is not doubted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
  from stajax.prepare.constant_rate import ShownFrames  # loads PyAV, which `--help` does not need

Units = Literal["pixels", "normalised", "percent", "signed", "screen"]
Origin = Literal["top", "bottom", "centre", "centre-up"]
TimeUnit = Literal["s", "ms", "us", "ns"]

SECONDS: dict[TimeUnit, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
WORDS: dict[TimeUnit, str] = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
SCREENS = (
  *((800, 600), (1024, 768), (1280, 720), (1280, 800), (1280, 1024), (1366, 768), (1440, 900), (1600, 900)),
  *((1600, 1200), (1680, 1050), (1920, 1080), (1920, 1200), (2560, 1440), (2560, 1600), (3840, 2160)),
)  # the usual sizes of screens, the smaller first
FEW = 20  # rows; fewer say nothing about where viewers look on average
MOST = 0.95  # the share of rows that must agree with a likely unit; trackers lose the eye now and then
NEARLY_ALL = 0.995
LOST = 0.2  # the share of rows outside of the picture or the frames that makes a table doubtful
LONG_LOOK = 5.0  # seconds; nobody looks at one point for so long again and again


@dataclass(frozen=True)
class GazeUnits:
  """The units that a user states for a table; None where nothing is stated.

  Attributes:
    units: What x and y are: `pixels` of the picture, `normalised` from 0 to 1 of its sides, `percent` of them, `signed`
      from -1 to 1 from its centre, or pixels of a `screen` that shows the picture as large as it fits, in the middle.
    origin: Where 0, 0 is: in the `top` left or `bottom` left corner, or in the `centre`; y grows downwards, but
      upwards from `bottom` and in `centre-up`.
    screen: The width and height of the screen in pixels.
    time: The unit of times.
    duration: The unit of durations; by default that of times.
  """

  units: Units | None = None
  origin: Origin | None = None
  screen: tuple[int, int] | None = None
  time: TimeUnit | None = None
  duration: TimeUnit | None = None

  def __post_init__(self) -> None:
    if self.units == "screen" and self.screen is None:
      raise ValueError("--units screen: expected also --screen, such as --screen 1920x1080")
    if self.screen is not None and self.units != "screen":
      raise ValueError(f"--screen with --units {self.units or 'not given'}: expected --units screen")

  def pixels(self, x: np.ndarray, y: np.ndarray, frames: ShownFrames) -> tuple[np.ndarray, np.ndarray]:
    """Returns the column and the row of the picture's pixel that each place lies in, (n,) float64 whole numbers.

    Places outside of the picture give numbers outside of it. A place on the right or lower edge of a normalised picture
    lies in its last pixel.
    """
    width, height = self.screen or (frames.width, frames.height)
    share = {"normalised": 1.0, "percent": 0.01, "signed": 0.5}.get(self.units or "pixels")
    if share is not None:
      x, y = x * share * width, y * share * height
    if self.units == "signed" or self.origin in ("centre", "centre-up"):
      x, y = x + width / 2, y + height / 2
    if share is not None:
      x, y = np.where(x == width, width - 0.5, x), np.where(y == height, height - 0.5, y)
    if self.screen is not None:
      x, y = _from_screen(x, y, self.screen, frames)
    x, y = np.floor(x), np.floor(y)
    return x, frames.height - 1 - y if self.origin in ("bottom", "centre-up") else y


def _from_screen(
  x: np.ndarray, y: np.ndarray, screen: tuple[int, int], frames: ShownFrames
) -> tuple[np.ndarray, np.ndarray]:
  """Returns places in the picture from those on a screen; whole numbers are taken for the middles of pixels."""
  if np.array_equal(x, np.floor(x)) and np.array_equal(y, np.floor(y)):
    x, y = x + 0.5, y + 0.5
  shown_width = frames.width * frames.pixel_aspect
  scale = min(screen[0] / shown_width, screen[1] / frames.height)
  left, above = (screen[0] - scale * shown_width) / 2, (screen[1] - scale * frames.height) / 2
  return (x - left) / (scale * frames.pixel_aspect), (y - above) / scale


def parse_screen(text: str | None) -> tuple[int, int] | None:
  """Returns the width and height of a screen that is written as `1920x1080`; raises ValueError for other text."""
  if text is None:
    return None
  found = re.fullmatch(r"([1-9]\d{1,4})[x×]([1-9]\d{1,4})", text.strip().lower())
  if found is None:
    raise ValueError(f"--screen {text!r}: expected a width and a height in pixels, such as 1920x1080")
  return int(found[1]), int(found[2])


def doubt_about_places(x: np.ndarray, y: np.ndarray, frames: ShownFrames, given: GazeUnits) -> str | None:
  """Returns why places are probably not pixels of the picture, or None; always None if their units were stated.

  Args:
    x: (n,) float64, finite; the values as they are in the table.
    y: (n,) float64, likewise.
    frames: The frames of the video.
    given: What was stated.
  """
  if not len(x) or given.units is not None:
    return None
  width, height = frames.width, frames.height
  found = f"x runs from {x.min():g} to {x.max():g}, y from {y.min():g} to {y.max():g}"
  against = f"{found}, in a picture of {width}×{height} pixels"
  stated = "(or state --units pixels)"
  if min(width, height) > 2 and _share_within(x, y, 0, 1, 1) >= MOST:
    return f"{against}: likely shares of the picture, --units normalised {stated}"
  if min(width, height) > 4 and _share_within(x, y, -1, 1, 1) >= MOST:
    up = "add --origin bottom if y grows upwards"
    return f"{against}: likely -1 to 1 from the centre, --units signed; {up} {stated}"
  is_corner = len(x) >= FEW and min(width, height) > 200 and max(x.max(), y.max()) <= 100
  if is_corner and _share_within(x, y, 0, 100, 100) >= MOST and min(x.max(), y.max()) > 50:
    return f"{against}: likely percent of the picture, --units percent {stated}"
  across, down = given.pixels(x, y, frames)
  outside = float(((across < 0) | (across >= width) | (down < 0) | (down >= height)).mean())
  if outside > LOST:
    return f"{against}: {outside:.0%} of the rows lie outside, {_likely_frame_of_places(x, y, width, height)} {stated}"
  far_x, far_y = float(np.quantile(across, 0.99)) / width, float(np.quantile(down, 0.99)) / height
  middle = max(float(np.median(across)) / width, float(np.median(down)) / height)
  if len(x) >= 5 * FEW and max(far_x, far_y) <= 0.67 and middle <= 0.36:
    likely = "likely pixels of a smaller picture or screen, --units screen --screen WIDTHxHEIGHT"
    return f"{against}: nobody looked at its right and lower part, {likely} {stated}"
  return None


def _share_within(x: np.ndarray, y: np.ndarray, low: float, high_x: float, high_y: float) -> float:
  return float(((x >= low) & (x <= high_x) & (y >= low) & (y <= high_y)).mean())


def _likely_frame_of_places(x: np.ndarray, y: np.ndarray, width: int, height: int) -> str:
  """Returns what the coordinates of a table with many rows outside of the picture likely refer to."""
  from_centre = float(((abs(x) <= 0.55 * width) & (abs(y) <= 0.55 * height)).mean())
  if from_centre >= MOST and (x < 0).mean() > LOST and (y < 0).mean() > LOST:
    return "likely pixels from the centre, --origin centre (or centre-up if y grows upwards)"
  if float(((x >= 0) & (x < width) & (y <= 0) & (y > -height)).mean()) >= MOST:
    return "likely y grows upwards from the upper edge: write it without its sign"
  for screen in SCREENS:
    if screen[0] >= width and screen[1] >= height and _share_within(x, y, 0, *screen) >= NEARLY_ALL:
      return f"likely pixels of a screen, --units screen --screen {screen[0]}x{screen[1]} or another size"
  return "likely pixels of another picture or screen, --units screen --screen WIDTHxHEIGHT"


def doubt_about_times(times: np.ndarray, viewers: np.ndarray, frames: ShownFrames) -> str | None:
  """Returns why times are probably not seconds from the first frame, or None.

  Args:
    times: (n,) float64, finite; the values as they are in the table.
    viewers: (n,) int64, whose row each is.
    frames: The frames of the video.
  """
  if not len(times):
    return None
  end = len(frames) / frames.rate
  found = f"times run from {times.min():.10g} to {times.max():.10g}, in a video of {end:.3f} s"
  stated = "(or state --time-unit s)"
  lost = float(((times < 0) | (times >= end)).mean())
  if lost > LOST and not frames.is_cut:
    likely = _likely_time_unit(times, end, len(frames))
    if likely or lost > 0.5:
      return f"{found}: {lost:.0%} of the rows lie outside, {likely or 'likely of another video or clock'} {stated}"
  step = _usual_step(times, viewers)
  if step is not None and step > LONG_LOOK:
    return f"{found}: rows of a viewer follow each other after {step:g}, likely milliseconds, --time-unit ms {stated}"
  return None


def doubt_about_durations(durations: np.ndarray) -> str | None:
  """Returns why durations (n,), in seconds, are probably of another unit, or None."""
  looks = durations[durations > 0]
  if not len(looks) or (usual := float(np.median(looks))) <= LONG_LOOK:
    return None
  unit: TimeUnit = "ms" if usual < 3e4 else "us" if usual < 3e7 else "ns"
  stated = "(or state --duration-unit s)"
  return f"durations are {usual:g} s in the middle: likely {WORDS[unit]}, --duration-unit {unit} {stated}"


def doubt_about_numbers(numbers: np.ndarray, frames: ShownFrames) -> str | None:
  """Returns why numbers (n,), counted from 0, are probably not those of the video's frames, or None."""
  count = int(frames.numbers[-1]) + 1
  if len(numbers) < FEW or frames.is_cut or float(((numbers < 0) | (numbers >= count)).mean()) <= LOST:
    return None
  found = f"frames run from {numbers.min():g} to {numbers.max():g}, of {count}"
  return f"{found}: likely numbers of samples, or of frames at another rate; give the column time instead of frame"


def _likely_time_unit(times: np.ndarray, end: float, count: int) -> str | None:
  low, high = float(times.min()), float(np.quantile(times, 0.98))
  is_whole = bool((times == np.floor(times)).all())
  if is_whole and low >= 0 and 0.5 * count <= high <= count and len(np.unique(times)) > 0.25 * (high - low):
    return "likely numbers of frames: call the column frame"
  for unit, scale in SECONDS.items():
    if not 0.05 * end <= (high - low) * scale <= 1.2 * end + 1:
      continue
    if abs(low * scale) <= end:
      return f"likely {WORDS[unit]}, --time-unit {unit}" if unit != "s" else None
    own = f"likely {WORDS[unit]} on a clock of the tracker: subtract its time at the first frame"
    return own if unit == "s" else f"{own}, and state --time-unit {unit}"
  return None


def _usual_step(times: np.ndarray, viewers: np.ndarray) -> float | None:
  """Returns the median time between rows of one viewer, or None if there are only few rows."""
  order = np.lexsort((times, viewers))
  steps = np.diff(times[order])[np.diff(viewers[order]) == 0]
  steps = steps[steps > 0]
  return float(np.median(steps)) if len(steps) >= FEW else None
