"""Staged inference equals the whole network on every fragment; and what is built on it for prediction."""

import collections
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stajax import model
from stajax.config import Config, Data, Network, Training
from stajax.data.stavis import StavisError, read_tree
from stajax.data.stavis_write import write_fold_lists, write_video
from stajax.dense import DenseNetwork, concatenate
from stajax.nets import weights
from stajax.nets.classifier import Classification
from stajax.nets.images import to_size
from stajax.prediction import load_predictor, method_maps, to_uint8

SIZE, STORED, CHUNK, MOST = 32, 40, 11, 23
SELECT = [0, 3]
CONFIG = Config(
  name="tiny",
  data=Data(source="synthetic"),
  network=Network(
    width=0.01, norm="batch", depths=(1,) * 5, neck_depth=1, audio_width=0.01, audio_pooling="average"
  ),
  **{name: Training(size=SIZE) for name in (*model.CLASSIFIERS, *model.STUDENTS)},
)
CATEGORIES = ["ant", "bee", "cat", "dog", "eel"]


def make_samples(count, seed=0, heard=0.7):
  rng = np.random.default_rng(seed)
  frames = rng.integers(0, 255, (count, STORED, STORED, 3), dtype=np.uint8)
  sounds = rng.normal(size=(count, 257, 98)).astype(np.float32)
  return [(frame, sound if rng.random() < heard else None) for frame, sound in zip(frames, sounds, strict=True)]


def neighbours(count, reach, times):
  """Frames of every fragment, by walking and turning round at the ends."""
  table = []
  for centre in range(count):
    row = []
    for offset in (-reach, 0, reach) if times == 3 else (0,):
      at, direction = centre, 1 if offset > 0 else -1
      for _ in range(abs(offset)):
        if count > 1 and not 0 <= at + direction < count:
          direction = -direction
        at += direction if count > 1 else 0
      row.append(at)
    table.append(row)
  return np.array(table)


class Setup:
  """A tiny network, staged and whole; the whole one computes MOST fragments in a call."""

  def __init__(self, name, random_variables):
    self.name, self.network = name, model.make_network(name, CONFIG, len(CATEGORIES))
    self.variables = random_variables(self.network, SIZE, seed=1)
    self._whole = jax.jit(self.network.apply)
    self._resize = jax.jit(lambda frames: to_size(frames, SIZE))
    self._dense = DenseNetwork(self.network, self.variables, SIZE, CHUNK)

  def staged(self, samples, reach):
    results = list(self._dense.run(samples, reach, () if self.name == "sta" else SELECT))
    return [np.concatenate(results)] if self.name == "sta" else list(concatenate(results))

  def whole(self, samples, reach):
    table = neighbours(len(samples), reach, self.network.num_times)
    table = np.concatenate([table, table[:1].repeat(MOST - len(table), axis=0)])
    frames = np.zeros((MOST, STORED, STORED, 3), np.uint8)
    frames[: len(samples)] = [frame for frame, _ in samples]
    inputs = [np.asarray(self._resize(frames))[table][:, None]]
    if self.network.hears:
      sounds = [samples[row[len(row) // 2]][1] for row in table]
      inputs.append(np.stack([np.zeros((257, 98), np.float32) if x is None else x for x in sounds])[:, None])
      inputs.append(np.array([[x is not None] for x in sounds], np.float32))
    out = self._whole(self.variables, *inputs)
    if self.name == "sta":
      return [1 / (1 + np.exp(-np.asarray(out)[: len(samples), 0]))]
    return [np.asarray(out.class_maps)[: len(samples), ..., SELECT], 1 / (1 + np.exp(-out.logits[: len(samples)]))]


@pytest.fixture(scope="module")
def setups(random_variables):
  return functools.cache(lambda name: Setup(name, random_variables))


CASES = [("st", 1, 1), ("st", 2, 1), ("st", 5, 2), ("st", 11, 1), ("st", 22, 1), ("st", 3, 5), ("st", 23, 5)]
CASES += [("sta", 1, 1), ("sta", 2, 1), ("sta", 11, 1), ("sta", 23, 1), ("sta", 5, 5), ("sta", 22, 5)]


@pytest.mark.parametrize(("name", "count", "reach"), CASES)
def test_staged_equals_whole(setups, name, count, reach):
  """Frames go in chunks of 11. The batches differ too: examples do not see each other in either."""
  samples = make_samples(count, seed=count)
  for staged, whole in zip(setups(name).staged(samples, reach), setups(name).whole(samples, reach), strict=True):
    assert staged.shape == whole.shape and staged.dtype == np.float32 and np.std(staged) > 1e-4
    np.testing.assert_allclose(staged, whole, rtol=1e-5, atol=1e-5)


class Trace:
  """A network whose result says which frames and sounds it was computed from; it runs without compilation."""

  num_times, hears = 3, True

  def __init__(self):
    self.encoded = collections.Counter()

  def apply(self, variables, *inputs, method):
    return getattr(self, method)(*inputs)

  def encode_frames(self, frames):
    number = np.rint(np.asarray(frames[:, 0, 0, 0] * 255))  # 0 fills a chunk up
    self.encoded.update(number[number > 0].astype(int).tolist())
    number = jnp.asarray(number)[:, None, None, None]
    return {"s": number, "f3": number}

  def encode_sound(self, sound):
    return sound[:, 0, :1]

  def fuse(self, features, audio, switch):
    return jnp.concatenate([features["s"][..., 0, 0, 0], audio, switch[:, None]], axis=1)

  def reason(self, fused, targets, size):
    seen = jnp.concatenate([targets["f3"][:, 0, 0], fused], axis=1)[:, None]
    return jnp.log((seen + 1) / (999 - seen))  # undone by the sigmoid


def numbered(heard):
  for number, is_heard in enumerate(heard, start=1):
    frame = np.full((2, 2, 3), number, np.uint8)
    yield frame, np.full((257, 98), number, np.float32) if is_heard else None


@pytest.mark.parametrize("reach", [1, 3, 7])
def test_every_length_and_chunk(reach):
  for batch, count in itertools.product((1, 8), (1, 2, 9, 16, 23)):
    network, heard = Trace(), np.random.default_rng(count).random(count) < 0.5
    with jax.disable_jit():
      results = list(DenseNetwork(network, {}, 2, batch).run(numbered(heard), reach))
    seen = np.rint(np.concatenate(results)[:, 0] * 1000 - 1).astype(int)
    table = neighbours(count, reach, 3) + 1
    expected = np.column_stack([table[:, 1], table, table[:, 1] * heard, heard])
    np.testing.assert_array_equal(seen, expected, err_msg=f"batch {batch}, {count} frames")
    assert network.encoded == {number: 1 for number in range(1, count + 1)}, "each frame is encoded once"


class SingleFrames(Trace):
  """The same of a classifier that hears but sees one frame a fragment, as SA; it has 2 categories."""

  num_times, source = 1, "sa"

  def fuse(self, features, audio, switch):
    seen = jnp.concatenate([features["s"][..., 0, 0, 0], audio, switch[:, None]], axis=1)
    return seen[:, None]  # (m, h = 1, w = 3, c = 1)

  def reason(self, nodes):
    class_maps = nodes[:, 0][:, :, :, None] * jnp.array([1.0, 2.0])
    return Classification(class_maps, jnp.log(class_maps[:, 0, 0] / 99))


@pytest.mark.parametrize("count", [1, 4, 8, 11])
def test_fragments_of_one_frame(count):
  heard, numbers, network = np.arange(count) % 3 > 0, np.arange(1, count + 1), SingleFrames()
  with jax.disable_jit():
    result = concatenate(DenseNetwork(network, {}, 2, 4).run(numbered(heard), reach=5, select=[1]))
  expected = 2 * np.column_stack([numbers, numbers * heard, heard])
  np.testing.assert_allclose(result.class_maps, expected[:, None, :, None], rtol=1e-5)
  odds = np.column_stack([numbers, 2 * numbers]) / 99
  np.testing.assert_allclose(result.confidences, odds / (1 + odds), rtol=1e-5)
  assert network.encoded == {number: 1 for number in numbers.tolist()}


def test_samples_are_read_as_needed():
  """The generator is at most two chunks and the reach ahead of the results, for a stream of any length."""
  pulled, received, ahead, batch, reach = 0, 0, 0, 8, 2

  def samples():
    nonlocal pulled
    for sample in numbered([True] * 70):
      pulled += 1
      yield sample

  with jax.disable_jit():
    for result in DenseNetwork(Trace(), {}, 2, batch).run(samples(), reach):
      ahead = max(ahead, pulled - received)
      received += len(result)
  assert received == pulled == 70 and ahead <= 2 * batch + reach + 1


def test_no_samples_give_no_results():
  assert list(DenseNetwork(Trace(), {}, 2, 4).run([])) == []


# The model folder and what predicts with it.


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, random_variables):
  folder = tmp_path_factory.mktemp("run")
  network = model.make_network("sta", CONFIG, len(CATEGORIES))
  path = folder / "weights.safetensors"
  sha256 = weights.save(path, random_variables(network, SIZE, seed=1))
  model.save(folder / "model", {"sta": path}, CONFIG, categories=CATEGORIES, rate=4.0, side=STORED,
             trained_on="synthetic", sha256={"sta": sha256})  # fmt: skip
  return folder


@pytest.fixture(scope="module")
def predictor(model_folder):
  return load_predictor(model_folder, batch=CHUNK)


def test_predictor(predictor, model_folder):
  assert (predictor.rate, predictor.side, predictor.trained_on, predictor.hears) == (4, STORED, "synthetic", True)
  assert len(predictor.notes) == 1 and predictor.notes[0].startswith("synthetic:")
  assert load_predictor(model_folder / "model").rate == 4


@pytest.mark.parametrize(("count", "heard"), [(1, 1), (1, 0), (6, 0), (6, 0.5)])
def test_short_and_silent_clips_have_a_map_for_every_frame(predictor, setups, count, heard):
  samples = make_samples(count, heard=heard)
  maps = list(predictor.maps(iter(samples)))
  assert len(maps) == count and all(x.shape == (SIZE, SIZE) and x.dtype == np.float32 for x in maps)
  assert all(0 <= x.min() < x.max() <= 1 for x in maps)
  if (count, heard) == (6, 0.5):
    (whole,) = setups("sta").whole(samples, 1)
    np.testing.assert_allclose(maps, whole, rtol=1e-5, atol=1e-5)


def test_maps_as_bytes():
  maps = np.array([[[0.0, 0.5], [0.25, 0.1]], [[0.0, 0.0], [0.0, 0.0]]])
  assert to_uint8(maps).tolist() == [[[0, 255], [128, 51]], [[0, 0], [0, 0]]]
  assert to_uint8(maps).dtype == np.uint8


@pytest.fixture
def tree(tmp_path):
  """A video of 9 frames at 8 a second with sound, and one of a single frame without."""
  rng = np.random.default_rng(0)
  for name, count in (("long", 9), ("one frame", 1)):
    frames = [rng.integers(0, 255, (24, 36, 3), dtype=np.uint8) for _ in range(count)]
    fixations, densities = [rng.random((24, 36)) < 0.02] * count, [np.full((24, 36), 9, np.uint8)] * count
    samples = np.sin(np.arange(18000) ** 1.2 / 10) if name == "long" else None
    write_video(tmp_path, "Tiny", name, frames, 8.0, samples, fixations, densities)
  write_fold_lists(tmp_path, "Tiny", [("long", 9, 8.0), ("one frame", 1, 8.0)])
  return tmp_path


def test_method_maps(predictor, tree, monkeypatch):
  """Every native frame is predicted, at neighbours that are two frames apart; those asked for are given."""
  videos = {video.name: video for video in read_tree(tree).videos}
  maps, calls, run = method_maps(predictor), [], predictor.maps

  def watched(samples, reach):
    def count(samples):
      for sample in samples:
        calls.append((reach, sample[1] is not None))
        yield sample

    return run(count(samples), reach)

  monkeypatch.setattr(predictor, "maps", watched)
  some = list(maps(videos["long"], [1, 4, 8]))
  assert calls == [(2, True)] * 9
  assert [frame for frames, _ in some for frame in frames] == [1, 4, 8]
  chosen = np.concatenate([found["sta"] for _, found in some])
  assert chosen.shape == (3, SIZE, SIZE) and chosen.dtype == np.uint8 and (chosen.max(axis=(1, 2)) == 255).all()
  every = np.concatenate([found["sta"] for _, found in maps(videos["long"], range(9))])
  np.testing.assert_array_equal(every[[1, 4, 8]], chosen)
  calls.clear()
  ((frames, found),) = maps(videos["one frame"], [0])
  assert frames == [0] and found["sta"].shape == (1, SIZE, SIZE) and calls == [(2, False)]


def test_a_broken_frame_is_named(predictor, tree):
  video = next(video for video in read_tree(tree).videos if video.name == "long")
  video.frame_paths[3].write_bytes(b"no picture")
  with pytest.raises(StavisError, match=r"img_00004\.jpg: not a readable frame"):
    list(method_maps(predictor)(video, [0]))
