"""Tests of folders of maps: where a video's maps are found, how they are read, and what the errors say."""

import math

import numpy as np
import pytest
from PIL import Image

from stajax.evaluate import map_files, value_ranges
from stajax.evaluate.map_sources import find_source
from stajax.eyetracking import StavisError, StavisVideo
from stajax.scoring.protocols import to_8_bits


def save(path, values):
  path.parent.mkdir(parents=True, exist_ok=True)
  np.save(path, values) if path.suffix == ".npy" else Image.fromarray(values).save(path)
  return path


@pytest.mark.parametrize(
  "name",
  [
    "split2_results/coutrot1/v/pred_sal_000001.jpg",
    "split2_results/Coutrot_db1/v/0001.png",
    "Coutrot_db1/v/img_00001.npy",
    "coutrot1/v/1.png",
    "v/img_00001.png",
  ],
)
def test_layouts_of_maps(tmp_path, name):
  path = save(tmp_path / name, np.full((4, 4), 5, np.uint8))
  splits = map_files.find_splits(tmp_path)
  assert list(splits) == ([2] if "split2" in name else [0])
  notes = []
  video = StavisVideo("Coutrot_db1", "v", 5.0, 3, (1,), (), {}, {})
  ((i, values, said),) = find_source(next(iter(splits.values())), video, notes).read(range(3))
  assert (i, said) == (0, str(path)) and not notes and values.shape == (4, 4)


def test_maps_past_the_end_overlays_and_doubles(tmp_path):
  grey = np.full((4, 4), 5, np.uint8)
  for number in (1, 2, 5):
    save(tmp_path / "v" / f"img_{number:05d}.png", grey)
  save(tmp_path / "v" / "img_00001.jpg", np.zeros((4, 4, 3), np.uint8))  # STANet's overlay beside its map
  files, notes = map_files.find_maps(tmp_path / "v", 4)
  assert [path.name for path in files.values()] == ["img_00001.png", "img_00002.png"]
  assert ".png files are read; the .jpg files beside them are not" in notes[0]
  assert "1 file past frame 4 ignored" in notes[1]
  save(tmp_path / "v" / "img_1.png", grey)
  with pytest.raises(StavisError, match=r"img_1\.png: a second map for frame 1"):
    map_files.find_maps(tmp_path / "v", 4)
  save(tmp_path / "w" / "0000.png", grey)
  with pytest.raises(StavisError, match=r"0000\.png: files are numbered from 1"):
    map_files.find_maps(tmp_path / "w", 4)
  with pytest.raises(StavisError, match="no such folder of maps"):
    find_source(tmp_path, StavisVideo("DIEM", "x", 5.0, 4, (1,), (), {}, {}), [])


def read_uint8(path):
  return to_8_bits(value_ranges.Ranges([]).convert(map_files.read_map(path), "v", str(path)))


def test_maps_become_uint8(tmp_path):
  values = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17
  grey_as_colour = np.repeat(values[..., None], 3, -1)
  for name, stored in [("a.png", values), ("b.npy", values), ("c.npy", values / 510), ("d.png", grey_as_colour)]:
    np.testing.assert_array_equal(read_uint8(save(tmp_path / name, stored)), values)
  np.testing.assert_array_equal(read_uint8(save(tmp_path / "e.png", values.astype(np.uint16) * 257)), values)
  np.testing.assert_array_equal(read_uint8(save(tmp_path / "f.npy", -np.ones((2, 2)))), 0)


def test_bad_maps_are_named(tmp_path):
  colour = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
  pickled = tmp_path / "p.npy"
  np.save(pickled, np.array([{}, 1], object), allow_pickle=True)
  text = tmp_path / "t.npy"
  text.write_text("0.5 0.5")
  damaged = tmp_path / "q.png"
  damaged.write_bytes(b"nothing")
  sees_through = tmp_path / "r.png"
  black, alpha = Image.new("L", (4, 4)), Image.fromarray(colour[..., 0])
  Image.merge("RGBA", [black, black, black, alpha]).save(sees_through)
  for path, expected in [
    (save(tmp_path / "a.png", colour), "a colour image"),
    (save(tmp_path / "b.npy", np.array([[math.nan]])), "not finite"),
    (save(tmp_path / "c.npy", np.zeros((2, 3, 4))), "expected real numbers"),
    (pickled, "cannot be read"),
    (text, "not a file of numpy.save"),
    (damaged, "cannot be read"),
    (sees_through, "some pixels are transparent, expected an opaque grey map"),
  ]:
    with pytest.raises(StavisError, match=expected) as error:
      read_uint8(path)
    assert path.name in str(error.value)


def test_value_ranges_are_recognised_and_nothing_is_clipped():
  rng = np.random.default_rng(0)
  density = np.exp(-0.5 * np.add.outer(np.linspace(-3, 3, 30) ** 2, np.linspace(-2, 4, 40) ** 2)) + 1e-4
  density /= density.sum()
  scores = (density - density.mean()) / density.std()
  eight = np.round(density / density.max() * 255).astype(np.uint8)
  with np.errstate(divide="ignore"):
    zero = np.log(np.where(density > 1e-4, density, 0) / density[density > 1e-4].sum())
  for values, kind, tolerance in [
    (eight, "8 bits", 0),
    (density, "probabilities", 0),
    (density / density.max(), "in [0, 1]", 0),
    (300 * density / density.max(), "not negative", 0),
    (np.log(density), "log densities", 0),
    (np.log(density).astype(np.float32), "log densities", 1),
    (zero, "log densities", 255),
    (scores, "z-scores", 3),  # the smallest value becomes 0
    (3 * scores - 7, "signed", 3),
    (rng.normal(size=(9, 9)) * 4 - 100, "signed", None),
    (eight.astype(float) - 255, "signed", 3),  # lowered by the maximum: the exponentials sum to 1, too
    ((eight / 127.5 - 1) * 1.7e308, "signed", 3),
  ]:
    assert value_ranges.recognise(values, "x") == kind
    found = to_8_bits(value_ranges.to_unit(values, kind))
    assert found.max() == 255
    if tolerance is not None:
      np.testing.assert_allclose(found.astype(float), eight, atol=tolerance)
    else:
      assert found.min() == 0 and len(np.unique(found)) > 50
  for bad in (np.array([[np.inf, 0.0]]), np.array([[-np.inf, 3.0]]), np.array([[np.nan, 3.0]])):
    with pytest.raises(StavisError, match="x: some values are not finite"):
      value_ranges.recognise(bad, "x")


def test_what_was_recognised_is_said_once_and_constant_maps_are_counted():
  notes = []
  ranges = value_ranges.Ranges(notes)
  logs = np.log(np.array([[0.5, 0.25], [0.125, 0.125]]))
  for name in ("a", "b"):
    ranges.convert(logs, "DB/v", name)
  ranges.convert(np.zeros((2, 2)), "DB/v", "c")
  ranges.finish("DB/v")
  assert len(notes) == 2 and "first in a): the exponentials of each map sum to 1" in notes[0]
  assert notes[1].startswith("DB/v: 1 constant map, ")
  with pytest.raises(StavisError, match=r"d: values from 0\.125 to 0\.5, expected log densities as in"):
    ranges.convert(np.exp(logs), "DB/v", "d")
