"""Training from the stored features of a frozen backbone equals training through one whose gradient is stopped."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util

from helpers.fake_records import fake_records
from helpers.small_network import sgd
from helpers.tiny import CONFIG, small_programs  # noqa: F401
from stajax import model, networks
from stajax.data import packed_features, sampler
from stajax.data.batch_settings import NetworkInputs, Sampling, StoredStages, TrainingSet
from stajax.data.batches import make_batches
from stajax.data.feature_set import FeatureSet
from stajax.data.map_set import MapSet, MapWriter
from stajax.data.packed_features import Packing
from stajax.data.shards import RecordError
from stajax.inference.class_maps import make_dense
from stajax.inference.clip import Clip, clip_samples
from stajax.nets.images import to_size
from stajax.train import step, stored_features

SIZE = 24


def make_config(**network):
  changes = {"backbone": "frozen", "norm": "none", **network}
  size = {name: getattr(CONFIG, name).model_copy(update={"size": SIZE}) for name in ("st", "sa", "st_plus", "sta", "s")}
  return CONFIG.model_copy(update={"network": CONFIG.network.model_copy(update=changes), **size})


pytestmark = pytest.mark.usefixtures("small_programs")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
  return fake_records(tmp_path_factory.mktemp("frozen"), number=6)


@pytest.fixture(scope="module")
def boxes(records):
  rng = np.random.default_rng(5)
  low, side = rng.uniform(0, 0.4, (2, records.total_frames, 2))
  return np.concatenate([low, low + side + 0.2], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def maps(records, tmp_path_factory):
  writer, rng = MapWriter(tmp_path_factory.mktemp("maps") / "maps", records), np.random.default_rng(6)
  for clip, count in enumerate(records.num_frames):
    writer.write(clip, rng.integers(0, 255, (count, 16, 16), np.uint8), np.ones(count, np.float32))
  writer.finish({})
  return MapSet.open(writer.path, records)


@functools.cache
def make_visual():
  frames = jnp.zeros((1, SIZE, SIZE, 3))
  return networks.make_backbone(make_config()).init(jax.random.key(1), frames)["params"]


def stored(config, records, folder, cropped, boxes, num_views, dtype="float32", max_scale=1.0):
  views = sampler.stored_views(num_views, 0.6, max_scale, seed=2, num_clips=records.num_clips)
  backbone = networks.make_backbone(config)
  encoder = stored_features.Encoder(backbone, make_visual(), SIZE, ("f3", "f4", "f5"), dtype, batch=4)
  path = folder / f"{num_views} {cropped} {dtype}"
  features = stored_features.store(path, records, encoder, views, boxes if cropped else None)
  return views, features


def train(network, variables, batches, frozen_parts):
  """Returns the parameters and losses after some steps."""
  mesh, update = step.make_mesh(jax.devices()[:1]), sgd()
  loss = (step.fixation_loss if network.predicts_maps else step.classification_loss)(SIZE)
  train_step = step.make_train_step(network, loss, update, mesh, frozen_parts)
  state, losses = step.make_state(jax.tree.map(jnp.array, variables), update), []
  for batch in batches:
    state, metrics = train_step(state, {key: x for key, x in batch.items() if key not in ("clip", "frame")})
    losses.append(float(metrics["loss"]))
  return traverse_util.flatten_dict(dict(state.params), sep="/"), losses


CASES = [
  pytest.param("st_plus_long", "long", True, 2, "float32", 1e-5, marks=pytest.mark.slow),
  ("s", None, True, 2, "float32", 1e-5),
  pytest.param("sta", None, False, 4, "float32", 1e-5, marks=pytest.mark.slow),
  pytest.param("sta", None, False, 4, "bfloat16", 5e-2, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("name, granularity, cropped, num_views, dtype, tolerance", CASES)
def test_training_on_features_equals_a_stopped_gradient(
  records, boxes, maps, tmp_path, name, granularity, cropped, num_views, dtype, tolerance
):
  config = make_config()
  network = networks.make_network(name, config, len(records.categories))
  views, features = stored(config, records, tmp_path, cropped, boxes, num_views, dtype)
  training_set = TrainingSet(records, maps=maps if name == "sta" else None, boxes=boxes if cropped else None)

  def batches(stored=None):
    inputs = NetworkInputs(network.num_times, network.hears, SIZE, companions=granularity, stored=stored)
    return make_batches(training_set, inputs, Sampling(seed=1, global_batch=4, views=views), range(2))

  own = networks.initialise(network, SIZE, jax.random.key(3), stored=True)
  whole = {**own, "params": {**own["params"], "visual": make_visual()}}
  assert "visual" not in own["params"]
  expected, losses = train(network, whole, batches(), ("visual",))
  stages = StoredStages(features, networks.stage_times(network))
  found, own_losses = train(network, own, batches(stages), ())
  np.testing.assert_allclose(own_losses, losses, rtol=tolerance)
  assert set(expected) - set(found) == {key for key in expected if key.startswith("visual/")}
  begin = traverse_util.flatten_dict(dict(own["params"]), sep="/")
  for key, x in found.items():
    scale = np.abs(np.asarray(expected[key]) - np.asarray(begin[key])).max()
    difference = np.abs(np.asarray(x) - np.asarray(expected[key])).max()
    assert difference <= 10 * tolerance * scale + 1e-7, (key, difference, scale)

  def distance(left, right):
    return np.sqrt(sum(np.sum(np.square(np.asarray(left[key]) - np.asarray(right[key]))) for key in begin))

  # The whole must be closer: rounding may change a small gradient by more, where few inputs of a ReLU are positive.
  moved = distance(expected, begin)
  assert moved > 1e-4 and distance(found, expected) <= tolerance * moved


@pytest.mark.parametrize("name", ["st", "sta"])
def test_dense_inference_takes_stored_features(records, boxes, tmp_path, name):
  """The result equals that of encoding frames, whatever the backbone's weights are: no frame is encoded."""
  config = make_config()
  cropped = name == "st"
  _, features = stored(config, records, tmp_path, cropped, boxes, 2)
  network = networks.make_network(name, config, len(records.categories))
  own = networks.initialise(network, SIZE, jax.random.key(3), stored=True)
  visual = make_visual()
  found = []
  for weights in (visual, jax.tree.map(jnp.zeros_like, visual)):
    dense = make_dense(name, model.with_visual(own, weights), config, len(records.categories), batch=8)
    for clip in (0, 4):
      first, count = int(records.first_frame[clip]), int(records.num_frames[clip])
      made = Clip(clip_samples(records, clip, 32), boxes=boxes[first : first + count] if cropped else None)
      if weights is not visual:
        made = dataclasses.replace(made, stored=lambda *of, clip=clip: features.frames(clip, of[2]))
      found.append(dense.run(made, select=(0, 1)) if cropped else (dense.run(made),))
  for expected, result in zip(found[:2], found[2:], strict=True):
    for x, y in zip(expected, result, strict=True):
      np.testing.assert_allclose(y, x, rtol=1e-4, atol=1e-6)


def test_stored_features_are_not_computed_again(records, tmp_path):
  """A second call computes only missing clips; other records and damaged files are refused by name."""
  config = make_config()
  _, features = stored(config, records, tmp_path, False, None, 2)
  files = sorted(features.path.glob("*.npy"))
  assert len(files) == 3 * records.num_clips
  times = {file: file.stat().st_mtime_ns for file in files}
  files[4].unlink()
  _, features = stored(config, records, tmp_path, False, None, 2)
  changed = {file.name for file in files if file.stat().st_mtime_ns != times[file]}
  assert changed == {file.name for file in files[3:6]}, "all stages of one clip"
  ids = np.array([[0, 5], [7, 7]])
  read = features.read("f5", ids, np.array([[1, 0], [1, 0]]))
  assert read.shape[:2] == (2, 2)
  for place in np.ndindex(2, 2):
    clip = records.clip_of_frame[ids[place]]
    frame = ids[place] - records.first_frame[clip]
    np.testing.assert_array_equal(read[place], features.clip(clip, "f5")[1 - place[1], frame])
  with pytest.raises(RecordError, match="features of other records"):
    FeatureSet.open(features.path, records, ("f5",), 2)


@pytest.mark.parametrize("dtype", ["bfloat16", "packed"])
def test_stored_features_are_compared_with_their_digests(records, tmp_path, dtype):
  """Every file of a clip is damaged or exchanged in turn: a line names it, and without it the clip is made again."""
  features = FeatureSet.open(tmp_path / "set", records, ("f4", "f5"), 2, is_packed=dtype == "packed")
  rng = np.random.default_rng(0)
  if features.is_packed:
    packings = {stage: Packing.of_sample(rng.random((3, 8))) for stage in features.stages}
    packed_features.write_packings(features.packings_file, packings)
  written = {}
  for clip in (0, 2):
    shape = 2, int(records.num_frames[clip]), 4, 4, 8
    x = {stage: rng.integers(0, 99, shape).astype(np.uint8) for stage in features.stages}
    written[clip] = x if features.is_packed else {stage: codes.astype(ml_dtypes.bfloat16) for stage, codes in x.items()}
    features.write(clip, written[clip])
  assert features.has(0) and features.has(2) and not features.has(1)
  content = {path: path.read_bytes() for path in features.path.iterdir() if path.name != "made_of"}
  assert len(content) == 2 * 3 + features.is_packed
  for path, whole in content.items():
    if path.name.startswith("00000000"):
      continue
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for changed in (flipped, whole[:50], b"", content.get(path.with_name(path.name.replace("2", "0"))), None):
      path.unlink()
      if changed is not None and changed != whole:
        path.write_bytes(changed)
      again = dataclasses.replace(features, _maps={})
      with pytest.raises(RecordError, match=r"; delete (it|its folder)") as error:
        for stage in features.stages:
          again.frames(2, stage)
      assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
      path.unlink(missing_ok=True)
      assert again.has(2) == (path == features.packings_file)
      path.write_bytes(whole)
  again = dataclasses.replace(features, _maps={})
  assert (again.clip(2, "f5")[1, 0] == written[2]["f5"][1, 0]).all()


def test_other_crops_are_other_features(records, boxes, tmp_path):
  config = make_config()
  stored(config, records, tmp_path, True, boxes, 1)
  stored(config, records, tmp_path, True, boxes, 1)
  with pytest.raises(RecordError, match=r"1 True float32: features of other records than .*, or of other crops"):
    stored(config, records, tmp_path, True, boxes * 0.9, 1)


def test_the_first_view_is_the_whole_frame_and_others_are_crops_of_each_clip():
  boxes, flips = sampler.stored_views(5, 0.6, 1.0, seed=0, num_clips=7)
  assert flips.tolist() == [False, True, False, True, False]
  np.testing.assert_array_equal(boxes[:, 0], np.broadcast_to([0, 0, 1, 1], (7, 4)))
  sides = boxes[..., 2:] - boxes[..., :2]
  np.testing.assert_allclose(sides[..., 0], sides[..., 1], rtol=1e-5)
  assert np.all(boxes >= 0) and np.all(boxes <= 1) and np.all(sides[:, 1:] >= 0.6) and np.all(sides[:, 1:] < 1)
  assert len(np.unique(boxes[:, 1:].reshape(-1, 4), axis=0)) == 7 * 4


def test_views_of_more_than_the_frame_contain_it():
  boxes, _ = sampler.stored_views(40, 0.6, 1.5, seed=0, num_clips=7)
  sides = boxes[..., 2] - boxes[..., 0]
  wide = boxes[sides > 1]
  assert sides.max() <= 1.5 and 0.3 < len(wide) / sides.size < 0.8
  assert np.all(wide[:, :2] <= 0) and np.all(wide[:, 2:] >= 1)


def test_views_of_more_than_the_frame_show_it_mirrored(records, boxes, tmp_path):
  (views, flips), features = stored(make_config(), records, tmp_path, False, boxes, 3, max_scale=1.9)
  clip = int(np.argmax(views[:, 2, 2] - views[:, 2, 0]))
  box, frame = views[clip, 2], records.clip_frames(clip, SIZE)[0]
  assert box[2] - box[0] > 1.2 and not flips[2]
  height, width, _ = frame.shape
  padded = np.pad(frame, ((height, height), (width, width), (0, 0)), "symmetric")
  images = to_size(padded[None], SIZE, ((box + 1) / 3)[None])
  expected = networks.make_backbone(make_config()).apply({"params": make_visual()}, images)
  np.testing.assert_allclose(np.asarray(features.clip(clip, "f5"))[2, 0], expected.f5[0], rtol=1e-3, atol=1e-4)


def test_packed_features_are_within_half_a_level(records, boxes, tmp_path):
  """The roots of features are rounded to 15 levels of the largest in a sample; what is larger has more levels."""
  config = make_config()
  views, exact = stored(config, records, tmp_path, True, boxes, 2)
  _, packed = stored(config, records, tmp_path, True, boxes, 2, "packed")
  for stage in ("f3", "f4", "f5"):
    largest = packed.packings[stage].largest
    for clip in (0, 5):
      expected = np.asarray(exact.clip(clip, stage), np.float64)
      codes = np.stack([[packed.clip(clip, stage)[view, i] for i in range(expected.shape[1])] for view in range(2)])
      roots = codes / 15 * np.sqrt(largest)
      in_range = codes < 255
      assert np.abs(roots - np.sqrt(expected))[in_range].max(initial=0) <= 0.5001 / 15 * np.sqrt(largest).max()
      assert in_range.mean() > 0.99
      np.testing.assert_allclose(packed.frames(clip, stage), roots[0] ** 2, rtol=1e-5)
  # A batch has the codes, and the step decodes them.
  network = networks.make_network("st", config, len(records.categories))
  own = networks.initialise(network, SIZE, jax.random.key(3), stored=True)
  inputs = NetworkInputs(3, False, SIZE, stored=StoredStages(packed, networks.stage_times(network)))
  sampling = Sampling(seed=1, global_batch=4, views=views)
  batch = next(make_batches(TrainingSet(records, boxes=boxes), inputs, sampling, range(1)))
  assert batch["f5"].dtype == np.uint8
  given = {"tags": batch["tags"], "f5": batch["f5"]}
  decoded = given | {"f5": (batch["f5"] / 15.0) ** 2 * packed.packings["f5"].largest}
  found = step.classification_loss(SIZE, packed.decode)(network, own, given)[0]
  np.testing.assert_allclose(found, step.classification_loss(SIZE)(network, own, decoded)[0], rtol=1e-5)


@pytest.mark.parametrize("change", ["cut", "bits", "header"])
def test_damaged_packed_features_are_named(tmp_path, change):
  path = tmp_path / "clip.bin"
  codes = np.random.default_rng(0).integers(0, 3, (2, 3, 4, 4, 8), np.uint8)
  packed_features.write(path, codes)
  read = packed_features.PackedFile(path)
  for place in np.ndindex(2, 3):
    np.testing.assert_array_equal(read[place], codes[place])
  content = bytearray(path.read_bytes())
  if change == "cut":
    del content[-1]
  elif change == "bits":
    content[-20:] = bytes(20)
  else:
    content[:8] = b"\xff" * 7 + b"\x7f"
  path.write_bytes(content)
  with pytest.raises(RecordError, match=r"clip\.bin: not stored features .*; delete it to have it made again"):
    packed_features.PackedFile(path)[1, 2]
