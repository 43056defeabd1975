"""Tables of fixations: the frames and pixels of their rows, and the densities made from them."""

from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage

from stajax.prepare.constant_rate import ShownFrames
from stajax.prepare.fixations import Annotation, FixationTable, sum_gaussians
from stajax.prepare.gaze_units import GazeUnits
from stajax.prepare.listing import ListingError

HEIGHT, WIDTH = 24, 40
STATED = GazeUnits("pixels", time="s")  # so that values of any size are taken


def shown(count: int = 6, rate: float = 10.0) -> ShownFrames:
  return ShownFrames(rate, np.arange(count), HEIGHT, WIDTH)


def read(tmp_path: Path, text: str, frames: ShownFrames | None = None, first_frame: int = 0, sigma: float = 0.05):
  """Returns a table, and the notes about it."""
  path = tmp_path / "table.csv"
  path.write_text(text, encoding="utf-8")
  notes: list[str] = []
  return FixationTable(path, frames or shown(), sigma, first_frame, STATED, notes), notes


def annotation(table: FixationTable, number: int) -> Annotation:
  found = table.frame(number)
  assert found is not None
  return found


def points(table: FixationTable, count: int = 6) -> list[list[tuple[int, int]]]:
  """Returns the fixated pixels (x, y) of every frame."""
  found = [table.frame(number) for number in range(count)]
  return [[] if one is None else sorted((int(x), int(y)) for y, x in zip(*np.nonzero(one[0]))) for one in found]


def test_frames_are_counted_from_zero_or_another_number(tmp_path):
  rows = "frame,x,y\n0,3,4\n0,3.9,4.99\n2,39,23\n2,0,0\n5,7,8\n"
  table, notes = read(tmp_path, rows)
  assert points(table) == [[(3, 4)], [], [(0, 0), (39, 23)], [], [], [(7, 8)]] and not notes
  table, notes = read(tmp_path, rows, first_frame=-1)
  assert points(table)[1:] == [[(3, 4)], [], [(0, 0), (39, 23)], [], []]
  assert notes == ["fixations: 1 of 5 rows outside of the 6 frames left out"]
  table, notes = read(tmp_path, "frame,x,y\n1,3,4\n6,7,8\n")
  assert "fixations: frames run to 6, of 6: are they counted from 1? (see --first-frame)" in notes
  table, notes = read(tmp_path, "frame,x,y\n1,3,4\n6,7,8\n", first_frame=1)
  assert points(table)[0] == [(3, 4)] and points(table)[5] == [(7, 8)] and not notes


def test_times_belong_to_the_frame_that_is_shown(tmp_path):
  table, notes = read(tmp_path, "time,x,y\n0,1,1\n0.0999,2,2\n0.25,3,3\n0.5996,4,4\n-0.05,5,5\n0.65,6,6\n")
  assert points(table) == [[(1, 1)], [(2, 2)], [(3, 3)], [], [], []] and len(notes) == 1
  table, _ = read(tmp_path, "duration,time,x,y\n0.2,0.1,1,1\n0.1,0.25,2,2\n9,0.45,3,3\n0.1,-0.05,4,4\n-1,0.3,5,5\n")
  assert points(table) == [[(4, 4)], [(1, 1)], [(1, 1), (2, 2)], [(2, 2), (5, 5)], [(3, 3)], [(3, 3)]]


def test_rows_of_a_video_with_a_varying_rate_count_its_own_frames(tmp_path):
  frames = ShownFrames(10.0, np.array([0, 0, 0, 2, 3, 3]), HEIGHT, WIDTH)
  table, notes = read(tmp_path, "frame,x,y\n0,1,1\n1,2,2\n2,3,3\n3,4,4\n", frames)
  assert points(table) == [[(1, 1)]] * 3 + [[(3, 3)]] + [[(4, 4)]] * 2
  assert notes == ["fixations: 1 of 4 rows outside of the 6 frames left out"]


def test_rows_that_cannot_be_used_are_counted(tmp_path):
  rows = "x;y;frame;viewer\n-1;3;0;a\n40;3;0;a\n3;24;0;a\nnan;3;0;a\n;;0;a\n3;3;1\n3;3;99;a\n\n3;3;1;a\n1e300;3;1;a\n"
  table, notes = read(tmp_path, rows)
  assert points(table) == [[], [(3, 3)], [], [], [], []]
  assert notes == [
    "fixations: 3 of 9 rows that are no numbers left out",
    "fixations: 4 of 9 rows outside of the picture of 40×24 pixels left out",
    "fixations: 1 of 9 rows outside of the 6 frames left out",
  ]


@pytest.mark.parametrize("header", ["frame,x,y,viewer", '\ufeffFrame, X ,"Y",viewer', "frame\tx\ty\tviewer"])
def test_the_density_is_the_gaussian_of_every_viewer(tmp_path, header):
  sign = "\t" if "\t" in header else ","
  rows = [(0, 10, 5, "a"), (0, 10, 5, "a"), (0, 20, 12, "a"), (0, 30, 20, "b"), (0, 10, 5, "c")]
  table, _ = read(tmp_path, "\n".join([header, *(sign.join(map(str, row)) for row in rows)]), sigma=0.1)
  fixated, density = annotation(table, 0)
  looked = np.zeros((HEIGHT, WIDTH))
  looked[5, 10], looked[12, 20], looked[20, 30] = 2 / 3 + 1, 1 / 3, 1  # each viewer has weight 1
  expected = scipy.ndimage.gaussian_filter(looked, 4.0, mode="constant", truncate=20)
  np.testing.assert_allclose(density, expected / expected.max() * 255, atol=0.51)
  assert density.dtype == np.uint8 and density.max() == 255 and np.array_equal(fixated, looked > 0)
  rows = "\n".join(sign.join(map(str, row[:3])) for row in rows)
  table, _ = read(tmp_path, header.replace(f"{sign}viewer", "") + "\n" + rows, sigma=0.1)
  looked[5, 10], looked[12, 20] = 3, 1  # without viewers each row has weight 1
  expected = scipy.ndimage.gaussian_filter(looked, 4.0, mode="constant", truncate=20)
  np.testing.assert_allclose(annotation(table, 0)[1], expected / expected.max() * 255, atol=0.51)


def test_many_gaussians_are_summed():
  rng = np.random.default_rng(0)
  y, x, weights = rng.integers(0, 8, 3000), rng.integers(0, 9, 3000), rng.random(3000).astype(np.float32)
  looked = np.zeros((8, 9))
  np.add.at(looked, (y, x), weights)
  bell = np.exp(-0.5 * (np.arange(-9, 10) / 1.5) ** 2)
  expected = looked
  for axis in (0, 1):
    expected = scipy.ndimage.convolve1d(expected, bell, axis, mode="constant")
  np.testing.assert_allclose(sum_gaussians(y, x, weights, 1.5, (8, 9)), expected, rtol=1e-4)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_are_read_in_the_encodings_of_spreadsheets(tmp_path, encoding):
  path = tmp_path / "table.csv"
  path.write_text("frame\tx\ty\tviewer\r\n0\t3,5\t4\tMüller\r\n", encoding=encoding, newline="")
  table = FixationTable(path, shown(), 0.05, 0, STATED, [])
  assert points(table)[0] == [(3, 4)]


def test_other_encodings_and_missing_numbers_are_named(tmp_path):
  path = tmp_path / "table.csv"
  path.write_text("frame,x,y,viewer\n0,3,4,Müller\n", encoding="latin-1")
  with pytest.raises(ListingError, match="is not text in UTF-8, or in UTF-16 with a byte order mark, expected a table"):
    FixationTable(path, shown(), 0.05, 0, STATED, [])
  with pytest.raises(ListingError, match="none of its 2 rows is about a pixel of a frame, 2 of them are no numbers"):
    read(tmp_path, "frame,x,y\n0,NaN,NaN\n1,,\n")


@pytest.mark.parametrize(
  "text, message",
  [
    ("", "the first line is 'nothing', expected names of columns"),
    ("0,1,2\n", "the first line is '0, 1, 2', expected"),
    ("frame,x\n", "expected names of columns"),
    ("frame,time,x,y\n", "expected names of columns"),
    ("frame,x,x,y\n", "expected names of columns"),
    ("frame,x,y\n", "none of its 0 rows is about a pixel of a frame"),
    ("frame,x,y\n9,1,1\n0,99,1\na,b,c\n", "none of its 3 rows is about a pixel of a frame"),
    ("frame,x,y\n" + "9" * 200_000 + "\n", "line 2: field larger than field limit"),
  ],
)
def test_bad_tables_are_refused_in_one_line(tmp_path, text, message):
  with pytest.raises(ListingError) as error:
    read(tmp_path, text)
  assert message in str(error.value) and "table.csv" in str(error.value) and "\n" not in str(error.value)


def test_tables_that_are_too_large_or_unreadable_are_refused(tmp_path, monkeypatch):
  monkeypatch.setattr("stajax.prepare.fixations.MAX_LOOKS", 10)
  with pytest.raises(ListingError, match="its rows cover more than 10 frames in all"):
    read(tmp_path, "time,duration,x,y\n0,1e300,1,1\n0,0.5,1,1\n")
  monkeypatch.setattr("stajax.prepare.fixations.MAX_BYTES", 10)
  with pytest.raises(ListingError, match="has 16 bytes, expected a table of at most 10"):
    read(tmp_path, "frame,x,y\n1,1,1\n")
  monkeypatch.undo()
  (tmp_path / "table.csv").write_bytes(b"frame,x,y\n\xff\xfe,1,1\n")
  for name, message in (("table.csv", "is not text"), ("", "is not a file"), ("no", "no such file")):
    with pytest.raises(ListingError, match=message):
      FixationTable(tmp_path / name, shown(), 0.1, 0, STATED, [])
