"""Units of tables of fixations: what is doubtful is refused with the likely unit, and what is stated is read rightly.

One set of looks is written in every unit by formulas of its own. Each table must give the pixels that were looked at.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stajax.prepare.constant_rate import ShownFrames
from stajax.prepare.fixations import FixationTable
from stajax.prepare.gaze_units import GazeUnits, parse_screen
from stajax.prepare.listing import ListingError

WIDTH, HEIGHT, RATE, COUNT = 640, 360, 10.0, 100
FRAMES = ShownFrames(RATE, np.arange(COUNT), HEIGHT, WIDTH)


def looks() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns one look in each frame: times (n,), x and y (n,) in pixels, one decimal from the middle of each pixel."""
  rng = np.random.default_rng(0)
  x = np.clip(rng.normal(WIDTH / 2, WIDTH / 6, COUNT), 2, WIDTH - 2)
  y = np.clip(rng.normal(HEIGHT / 2, HEIGHT / 6, COUNT), 2, HEIGHT - 2)
  return (np.arange(COUNT) + 0.5) / RATE, np.floor(x) + 0.5, np.floor(y) + 0.5


def write(path: Path, time: np.ndarray, x: np.ndarray, y: np.ndarray, sign: str = ",", point: str = ".") -> Path:
  rows = [f"time{sign}x{sign}y"]
  rows += [sign.join(f"{value:.7f}".replace(".", point) for value in row) for row in zip(time, x, y)]
  path.write_text("\n".join(rows))
  return path


def fixated(path: Path, units: GazeUnits, frames: ShownFrames = FRAMES) -> tuple[np.ndarray, list[str]]:
  """Returns the fixated pixel (x, y) of every frame, and the notes."""
  notes: list[str] = []
  table = FixationTable(path, frames, 0.01, 0, units, notes)
  found = [table.frame(number) for number in range(len(frames))]
  assert all(one is not None and one[0].sum() == 1 for one in found)
  return np.array([np.argwhere(one[0])[0][::-1] for one in found if one is not None]), notes


TIME, X, Y = looks()
SCALE, LEFT = 3.0, (2560 - 640 * 3.0) / 2  # on a screen of 2560×1080, the picture has bars left and right
PLACES = {  # the values of the table, its units, and what the refusal says
  "normalised": (X / WIDTH, Y / HEIGHT, GazeUnits("normalised"), "--units normalised"),
  "percent": (X / WIDTH * 100, Y / HEIGHT * 100, GazeUnits("percent"), "--units percent"),
  "signed": (2 * X / WIDTH - 1, 2 * Y / HEIGHT - 1, GazeUnits("signed"), "--units signed"),
  "signed, upwards": (2 * X / WIDTH - 1, 1 - 2 * Y / HEIGHT, GazeUnits("signed", "centre-up"), "--units signed"),
  "from the centre": (X - WIDTH / 2, Y - HEIGHT / 2, GazeUnits("pixels", "centre"), "--origin centre"),
  "from the centre, upwards": (X - WIDTH / 2, HEIGHT / 2 - Y, GazeUnits("pixels", "centre-up"), "--origin centre"),
  "a larger screen": (X * 3, Y * 3, GazeUnits("screen", None, (1920, 1080)), "--units screen --screen 1"),
  "a screen with bars": (X * SCALE + LEFT, Y * SCALE, GazeUnits("screen", None, (2560, 1080)), "--units screen"),
  "a screen, upwards": (X * 3, 1080 - Y * 3, GazeUnits("screen", "bottom", (1920, 1080)), "--units screen"),
  "a smaller screen": (X / 2, Y / 2, GazeUnits("screen", None, (320, 180)), "--units screen --screen WIDTHxHEIGHT"),
  "below the upper edge": (X, -Y, None, "y grows upwards from the upper edge"),
  "degrees": ((X - 320) / 20, (Y - 180) / 20, None, "--origin centre"),
}


@pytest.mark.parametrize("kind", PLACES)
def test_doubtful_places_are_refused_until_their_unit_is_stated(tmp_path, kind):
  x, y, units, words = PLACES[kind]
  path = write(tmp_path / "v.csv", TIME, x, y)
  with pytest.raises(ListingError) as error:
    fixated(path, GazeUnits())
  assert words in str(error.value) and "--units pixels" in str(error.value) and "\n" not in str(error.value)
  if units is not None:
    pixels, notes = fixated(path, units)
    np.testing.assert_array_equal(pixels, np.stack([np.floor(X), np.floor(Y)], 1))
    assert not notes


@pytest.mark.parametrize("unit, per_second", [("ms", 1e3), ("us", 1e6), ("ns", 1e9)])
def test_doubtful_times_are_refused_until_their_unit_is_stated(tmp_path, unit, per_second):
  path = write(tmp_path / "v.csv", TIME * per_second, X, Y)
  with pytest.raises(ListingError, match=f"--time-unit {unit} .or state --time-unit s"):
    fixated(path, GazeUnits())
  pixels, notes = fixated(path, GazeUnits(time=unit))
  np.testing.assert_array_equal(pixels, np.stack([np.floor(X), np.floor(Y)], 1))
  assert not notes


@pytest.mark.parametrize(
  "times, words",
  [
    (np.arange(COUNT), "likely numbers of frames: call the column frame"),
    (1.7e9 + TIME, "likely seconds on a clock of the tracker: subtract"),
    (4.2e6 + 1000 * TIME, "likely milliseconds on a clock of the tracker: subtract its time at the first frame"),
    (TIME + 3600, "of the tracker"),
    (TIME * 37, "of another video or clock"),
  ],
)
def test_times_of_another_clock_are_refused(tmp_path, times, words):
  with pytest.raises(ListingError, match=words):
    fixated(write(tmp_path / "v.csv", times, X, Y), GazeUnits())


def test_milliseconds_that_fit_into_a_long_video_are_refused(tmp_path):
  hours = ShownFrames(RATE, np.arange(5 * 3600 * 10), HEIGHT, WIDTH)
  with pytest.raises(ListingError, match="follow each other after 100, likely milliseconds"):
    FixationTable(write(tmp_path / "v.csv", TIME * 1000, X, Y), hours, 0.01, 0, GazeUnits(), [])


def test_numbers_of_samples_are_no_frames(tmp_path):
  path = write(tmp_path / "v.csv", np.round(TIME * 1000), X, Y)
  path.write_text(path.read_text().replace("time", "frame"))
  with pytest.raises(ListingError, match="frames run from 50 to 9950, of 100: likely numbers of samples"):
    fixated(path, GazeUnits())


def test_rows_after_the_end_are_expected_where_a_video_is_cut(tmp_path):
  path = write(tmp_path / "v.csv", TIME * 2, X, Y)
  notes: list[str] = []
  FixationTable(path, replace(FRAMES, is_cut=True), 0.01, 0, GazeUnits(), notes)
  assert notes == ["fixations: 50 of 100 rows outside of the 100 frames left out"]


def test_durations_may_have_a_unit_of_their_own(tmp_path):
  rows = [f"{k},{k / 2},250,300,100" for k in range(20)]
  path = tmp_path / "v.csv"
  path.write_text("\n".join(["viewer,time,duration,x,y", *rows]))
  with pytest.raises(ListingError, match="durations are 250 s in the middle: likely milliseconds, --duration-unit ms"):
    FixationTable(path, FRAMES, 0.01, 0, GazeUnits(), [])
  table = FixationTable(path, FRAMES, 0.01, 0, GazeUnits(duration="ms"), [])
  assert [table.frame(number) is not None for number in range(9)] == [True] * 3 + [False] * 2 + [True] * 3 + [False]


@pytest.mark.parametrize("sign", [";", "\t"])
def test_decimal_commas_are_read_and_said(tmp_path, sign):
  pixels, notes = fixated(write(tmp_path / "v.csv", TIME, X, Y, sign, ","), GazeUnits())
  np.testing.assert_array_equal(pixels, np.stack([np.floor(X), np.floor(Y)], 1))
  assert notes == ["fixations: commas in numbers are read as decimal points"]


@pytest.mark.parametrize(
  "text, words",
  [
    ("time,x,y\n0,02,160,5,100,5\n0,04,161,5,100,5\n", "2 rows have more fields than the 3 names of columns: decimal"),
    ("time;x;y\n0.02;160,5;100\n", "numbers with commas (160,5) and with points (0.02), expected only one of them"),
    ("time;x;y\n0;1,160;1,100\n1;1,161;1,100\n", "does 1,160 mean thousands?"),
  ],
)
def test_doubtful_commas_are_refused(tmp_path, text, words):
  (tmp_path / "v.csv").write_text(text)
  with pytest.raises(ListingError) as error:
    fixated(tmp_path / "v.csv", GazeUnits())
  assert words in str(error.value)


def test_edges_of_a_picture_are_in_it(tmp_path):
  corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], float)
  frames = ShownFrames(1.0, np.arange(4), HEIGHT, WIDTH)
  path = write(tmp_path / "v.csv", np.arange(4.0), *corners.T)
  pixels, _ = fixated(path, GazeUnits("normalised"), frames)
  assert pixels.tolist() == [[0, 0], [639, 0], [0, 359], [639, 359]]
  pixels, _ = fixated(path, GazeUnits("normalised", "bottom"), frames)
  assert pixels.tolist() == [[0, 359], [639, 359], [0, 0], [639, 0]]
  path.write_text("time,x,y\n0,0,0\n1,639,0\n2,0,359\n3,639,359\n")  # whole numbers of pixels
  pixels, _ = fixated(path, GazeUnits("pixels", "bottom"), frames)
  assert pixels.tolist() == [[0, 359], [639, 359], [0, 0], [639, 0]]


def test_pixels_that_are_not_square_are_wider_on_a_screen(tmp_path):
  frames = ShownFrames(RATE, np.arange(COUNT), 576, 720, 64 / 45)  # 16:9 DVD, shown 1024×576
  path = write(tmp_path / "v.csv", TIME, X * 1024 / 720 * 1.25, Y * 1.25)
  pixels, _ = fixated(path, GazeUnits("screen", None, (1280, 720)), frames)
  np.testing.assert_array_equal(pixels, np.stack([np.floor(X), np.floor(Y)], 1))


@pytest.mark.parametrize("seed", range(5))
def test_pixels_and_seconds_are_not_doubted(tmp_path, seed):
  rng = np.random.default_rng(seed)
  x, y = rng.normal(WIDTH * rng.uniform(0.4, 0.6), 60, COUNT), rng.normal(HEIGHT * rng.uniform(0.4, 0.6), 40, COUNT)
  fixated(write(tmp_path / "v.csv", TIME, np.clip(x, 0, WIDTH - 1), np.clip(y, 0, HEIGHT - 1)), GazeUnits())


def test_options_that_do_not_fit_together_are_refused():
  with pytest.raises(ValueError, match="--units screen: expected also --screen"):
    GazeUnits("screen")
  with pytest.raises(ValueError, match="expected --units screen"):
    GazeUnits("pixels", None, (10, 10))
  with pytest.raises(ValueError, match="--screen '1920': expected a width and a height"):
    parse_screen("1920")
  assert parse_screen("1920x1080") == (1920, 1080) and parse_screen(None) is None


def test_numbers_of_samples_at_twice_the_rate_are_refused(tmp_path):
  path = tmp_path / "v.csv"
  path.write_text("frame,x,y\n" + "".join(f"{number},{320 + number % 9},180\n" for number in range(2 * COUNT)))
  with pytest.raises(ListingError, match="frames run from 0 to 199, of 100: likely numbers of samples"):
    fixated(path, GazeUnits())
