"""Staged inference equals the whole network on groups gathered by hand, and encodes every frame once."""

import collections
from functools import partial
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import tiny
from helpers.tiny import CATEGORIES, CONFIG, SIZE, fragment, make, make_boxes, make_clip, make_samples, walk, whole
from stajax import networks
from stajax.inference import programs
from stajax.inference.clip import WINDOW, Clip, clip_samples, windows
from stajax.inference.dense import DenseNetwork, Groups, make_tagger
from stajax.media.spectrogram import HOP, SEGMENT
from stajax.nets.classifier import Classification

SELECT = (0, 3)

small_programs = tiny.small_programs
pytestmark = pytest.mark.usefixtures("small_programs")


def random_groups(clip, num_nodes, seed=0):
  """Draws any companions of the clip's targets, some of them from a pool."""
  samples = np.random.default_rng(seed).integers(0, num_nodes, (len(clip.targets), 3))
  samples[:, 0] = clip.targets
  return samples


@pytest.mark.parametrize("name", ["st", "sa_plus_cross"])
def test_staged_equals_whole(name, random_variables):
  """The clip is longer than two batches, neighbours may be apart, companions are any, and ST sees crops.

  The students and the switch, a plain SA, are in test_predictor.py.
  """
  network, variables = make(name, random_variables)
  dense = DenseNetwork(network, variables, SIZE, 4, cropped=name == "st")
  for reach in (1, 3):
    clip = make_clip(11, reach, seed=reach, boxes=make_boxes(11) if name == "st" else None)
    gathered, groups = [[(clip, i)] for i in range(11)], None
    if network.plus:
      other = make_clip(5, seed=9)
      nodes = [*((clip, i) for i in range(11)), *((other, i) for i in range(5))]
      groups = Groups(random_groups(clip, 16), dense.nodes(other))
      gathered = [[nodes[i] for i in group] for group in groups.samples]
    class_maps, confidences = whole(network, variables, gathered)
    found = dense.run(clip, SELECT, groups)
    assert found.class_maps.dtype == np.float32 and np.std(class_maps, axis=0).max() > 1e-3, "frames differ"
    np.testing.assert_allclose(found.class_maps, class_maps[..., SELECT], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.confidences, confidences, rtol=1e-4, atol=1e-5)


def test_s_can_have_a_refine_layer_on_its_spatial_map(random_variables):
  """Row 12 of the ablation has it (Eqs. 9 and 10). It has no parameters, and frames are not encoded again for it."""
  network, variables = make("s_coarse", random_variables)
  refined, clip = networks.make_network("s_coarse", CONFIG, len(CATEGORIES), refine=True), make_clip(3)
  plain, found = (DenseNetwork(each, variables, SIZE, 4).run(clip, range(5)).class_maps for each in (network, refined))
  (features,) = clip.features.values()
  states = np.asarray(features["s"])[:3]
  kernel = variables["params"]["classify"]["kernel"][0, 0]
  np.testing.assert_allclose(plain, states @ kernel, rtol=1e-4, atol=1e-5)
  response = states.mean(axis=-1, keepdims=True)
  rate = np.where(response < 0.8 * response.max(axis=(1, 2), keepdims=True), 0.6, 1) / (1 + np.exp(-response))
  np.testing.assert_allclose(found, 0.5 * (states * rate + states) @ kernel, rtol=1e-4, atol=1e-5)


class Trace:
  """A network whose results say which frames, sounds and switches they were made from; it counts what it encodes."""

  def __init__(self, num_times=3, hears=True, is_student=False):
    self.num_times, self.hears = num_times, hears
    self.predicts_maps = is_student
    self.encoded = collections.Counter()

  def count(self, numbers):
    self.encoded.update(i for i in np.unique(numbers).astype(int).tolist() if i)  # the last one fills a batch up

  def counted(self):
    """Returns how often each frame and, as negative numbers, each second of sound was encoded since the last call."""
    jax.effects_barrier()
    counts = dict(self.encoded)
    self.encoded.clear()
    return counts

  def apply(self, variables, *inputs, method, **options):
    self.variables = variables["params"]
    return getattr(self, method)(*inputs, **options)

  def encode_frames(self, frames):
    return self.embed(self.backbone(frames))

  num_nodes = None  # any number
  backbone_stages, frame_parts = ("f5",), ("visual", "neck")

  def backbone(self, frames, keep=()):
    number = jnp.sum(jnp.rint(frames[:, -1:, -1:] * 255) * jnp.array([1, 100, 0]), axis=-1, keepdims=True)
    jax.debug.callback(self.count, number[:, 0, 0, 0])
    return {"f5": number * self.variables["visual"]}

  def embed(self, stages):
    number = stages["f5"] * self.variables["neck"]
    return {"s": number, "f3": number} if self.predicts_maps else {"s": number}

  def encode_sound(self, sound):
    jax.debug.callback(self.count, -sound[:, 0, 0])
    return sound[:, 0, :1]

  def fuse(self, features, audio=None, switch=None):
    parts = [features["s"][..., 0, 0, 0], *([audio, switch[:, None]] if self.hears else [])]
    return jnp.concatenate(parts, axis=1)[:, None, None]

  def reason(self, nodes, features=None, size=None, read=None):
    seen = nodes.reshape(len(nodes), -1)
    if not self.predicts_maps:
      return Classification(jnp.stack([-seen, seen], axis=-1)[:, None], jnp.log(seen / (2000 - seen)), None)
    seen = jnp.concatenate([seen, features["f3"][:, :read, 0, 0, 0]], axis=1)
    return jnp.log((seen + 1) / (2000 - seen))[:, None, None]  # undone by the sigmoid


def make_trace(*arguments, size=8, batch=4, visual=1.0, neck=1.0, **settings):
  network, parts = Trace(*arguments), {"visual": np.float32(visual), "neck": np.float32(neck)}
  return network, DenseNetwork(network, {"params": parts}, size, batch, **settings)


def numbered(count, first=1):
  """Yields samples that show their number, and 50 more in their left half; every third has no sound."""
  for number in range(first, first + count):
    frame = np.full((8, 8, 3), [number % 100, number // 100, 0], np.uint8)
    frame[:, :4, 0] += 50
    yield frame, np.full((257, 98), number, np.float32) if number % 3 else None


def expected_trace(network, clip, groups, others=None, factor=1):
  """Returns what `Trace` should have seen, by walking from frame to frame."""
  rows = []
  for group in groups:
    row = []
    for i in group:
      of, i = (clip, i) if i < len(clip) else (others, i - len(clip))
      row += [(of.first + j + 1) * factor for j in fragment(i, network, of)]
      if network.hears:
        row += [0 if of.samples[i][1] is None else of.first + i + 1, of.switch[i]]
    rows.append([*row, (clip.first + group[0] + 1) * factor] if network.predicts_maps else row)
  return np.array(rows)


def seen(result):
  """Returns what a result says was seen."""
  return result.class_maps[:, 0, :, 0] if isinstance(result, tuple) else np.rint(result[:, 0] * 2001 - 1)


def once(numbers, hears=True):
  """Returns what is counted where every sample is encoded once; every third has no sound."""
  return dict.fromkeys([*numbers, *(-i for i in numbers if i % 3 and hears)], 1)


@pytest.mark.parametrize("is_student", [False, True])
def test_every_length_and_reach(is_student):
  """The largest reach is longer than its clip."""
  network, dense = make_trace(3, True, is_student)
  other = Clip(list(numbered(4, 50)), first=49)
  pool = dense.nodes(other)
  assert network.counted() == once(range(50, 54))
  for count, reach, used in ((1, 1, None), (4, 7, None), (9, 3, pool), (13, 1, pool)):
    clip = Clip(list(numbered(count)), reach).with_switch(np.random.default_rng(count).integers(0, 2, count))
    groups = random_groups(clip, count + (0 if used is None else 4))
    found = seen(dense.run(clip, (1,), Groups(groups, used)))
    np.testing.assert_array_equal(found, expected_trace(network, clip, groups, other), err_msg=f"{count} samples")
    assert network.counted() == once(range(1, count + 1))


def test_results_are_for_the_targets_and_the_selected_classes():
  network, dense = make_trace(3, False)
  clip = Clip(list(numbered(11)), targets=range(4, 9))
  (found, confidences), expected = dense.run(clip, (1, 0, 1)), expected_trace(network, clip, np.arange(4, 9)[:, None])
  np.testing.assert_array_equal(found[:, 0], expected[:, :, None] * np.array([1, -1, 1]))
  np.testing.assert_allclose(confidences * 2000, expected, rtol=1e-3)
  assert dense.run(clip).class_maps.shape == (5, 1, 3, 0)
  assert dense.nodes(clip).shape == (11, 1, 1, 3)


@pytest.mark.parametrize("reach, margin, length", [(1, 4, 8), (2, 4, 8), (1, 0, 3), (9, 2, 5)])
def test_windows_cover_the_whole_video(reach, margin, length):
  """Every sample is a target once, in order, with all its neighbours; a bounded number is read ahead."""
  far = margin * reach
  for count in range(0, 2 * length + 2 * far + 3):
    pulled, targets = [], []

    def samples(count=count, pulled=pulled):
      for number in range(count):
        pulled.append(number)
        yield number, None

    for clip in windows(samples(), reach, margin, length):
      at = [clip.first + i for i in clip.targets]
      targets += at
      assert [number for number, _ in clip.samples] == list(range(clip.first, clip.first + len(clip)))
      assert clip.reach == reach and clip.first <= max(0, at[0] - far)
      assert clip.first + len(clip) >= min(count, at[-1] + far + 1)
      assert len(clip) <= length + 2 * far and len(pulled) <= at[0] + length + far
    assert targets == list(range(count)) and len(pulled) == count


@pytest.mark.parametrize("reach, margin, length", [(1, 4, 128), (1, 1, 48), (4, 1, 48), (15, 1, 48), (1, 0, 3)])
def test_all_windows_of_a_video_have_the_same_programs(reach, margin, length):
  """Buffers of one size, with room for a batch that begins anywhere; one window alone takes no more than it needs."""
  for count in (1, length, length + margin * reach + 1, 4 * length + 3):
    clips = list(windows([(number, None) for number in range(count)], reach, margin, length))
    rooms = {DenseNetwork._capacity(SimpleNamespace(_batch=8), clip) for clip in clips}
    (room,) = rooms
    assert room >= max(map(len, clips)) + (7 if len(clips) > 1 else 0)
    if count < length + margin * reach:
      assert room < 2 * max(8, count)


def apart(clip):
  """Returns groups of fragments of three frames that touch."""
  return np.array([[i, *(walk(i, side * 3 * clip.reach, len(clip)) for side in (-1, 1))] for i in clip.targets])


def test_windows_share_what_their_borders_encode():
  """Short companions are at most four frames away, so results are those of the whole video.

  The last window is shorter than a batch, or needs several.
  """
  network, dense = make_trace(3, True, batch=10)
  for count, reach, length in ((13, 1, 8), (24, 1, 8), (33, 2, 8), (300, 1, WINDOW)):
    clip, found, short = Clip(list(numbered(count)), reach), [], []
    for window in windows(iter(clip.samples), reach, length=length):
      found.append(seen(dense.run(window, (1,))))
      short.append(seen(dense.run(window, (1,), Groups(apart(window)))))
    np.testing.assert_array_equal(np.concatenate(found), expected_trace(network, clip, np.arange(count)[:, None]))
    np.testing.assert_array_equal(np.concatenate(short), expected_trace(network, clip, apart(clip)))
    assert network.counted() == once(range(1, count + 1)), f"{count} frames"


def traced_once(monkeypatch, *parts):
  """Makes parts of a network raise where they are traced a second time."""
  chex.clear_trace_counter()
  monkeypatch.setattr(programs, "_SHARED", {})
  for part in parts:
    monkeypatch.setattr(programs.Programs, part, chex.assert_max_traces(getattr(programs.Programs, part), 1))


def test_all_windows_run_one_program(random_variables, monkeypatch):
  """So do the last ones, which are shorter or longer than the others."""
  network, variables = make("st", random_variables)
  traced_once(monkeypatch, "_reason")
  dense = DenseNetwork(network, variables, SIZE, 4)
  for count in (30, 47):
    for clip in windows(make_samples(count), length=16):
      dense.run(clip, SELECT)


@pytest.mark.parametrize("count", [4, 16, 18])
def test_groups_in_parts_have_the_maps_of_all_at_once(random_variables, monkeypatch, count):
  """TPUs reason over a part of the groups at a time, which is run here instead. The last part may be smaller."""
  network, variables = make("sta_plus_long", random_variables)
  rng = np.random.default_rng(0)
  nodes, spatial = rng.normal(size=(2, 9, 4, 4, len(CATEGORIES))).astype(np.float32)
  groups = rng.integers(0, 9, (count, 3))

  given = variables, nodes, {"s": spatial}, groups
  expected = jax.jit(partial(programs.target_maps, network, SIZE))(*given)
  monkeypatch.setattr(programs, "_PART", 8)
  monkeypatch.setattr(jax.lax, "platform_dependent", lambda *given, tpu, default: tpu(*given))
  found = jax.jit(partial(programs.target_maps, network, SIZE))(*given)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
  assert found.shape == (count, SIZE, SIZE) and np.std(found, axis=0).max() > 1e-3


def test_groups_of_another_size_are_refused(random_variables):
  for samples in (np.zeros((3, 2), int), np.zeros(3, int)):
    with pytest.raises(ValueError, match="expected a target and 2 companions"):
      Groups(samples)
  network, variables = make("sa_plus_cross", random_variables)
  with pytest.raises(AssertionError, match="shape"):
    DenseNetwork(network, variables, SIZE, 4).run(make_clip(3), SELECT)
  student, variables = make("sta_plus_long", random_variables)
  with pytest.raises(AssertionError, match="shape"):
    DenseNetwork(student, variables, SIZE, 4).run(make_clip(3), (), Groups(np.zeros((3, 2), int), num_companions=1))


def test_networks_share_frozen_backbones_and_equal_encoders():
  """With another backbone, size or crop an encoder is not equal."""
  networks = {
    "first": make_trace(1, False, visual=2, keep_stages=("f5",)),
    "same backbone": make_trace(3, False, visual=2, neck=3, keep_stages=("f5",)),
    "same encoder": make_trace(1, False, visual=2),
    "other backbone": make_trace(1, False, visual=3, keep_stages=("f5",)),
    "other size": make_trace(1, False, size=4, visual=2),
    "crop": make_trace(1, False, visual=2, cropped=True, keep_stages=("f5",)),
    "same crop": make_trace(1, False, visual=2, neck=3, cropped=True, keep_stages=("f5",)),
  }
  found = {name: [] for name in networks}
  for clip in windows(numbered(14), length=8):
    # A window's boxes may differ from those that the window before had for the same frames.
    left = 0.0 if clip.first else 0.75
    clip.boxes = np.tile(np.float32([0, left, 0.25, left + 0.25]), (len(clip), 1))
    for name, (_, dense) in networks.items():
      found[name].append(seen(dense.run(clip, (1,))))
  assert [len(part) for part in found["first"]] == [8, 6]
  clip = Clip(list(numbered(14)))
  for name, (network, _) in networks.items():
    factor = {"same backbone": 6, "other backbone": 3, "same crop": 6}.get(name, 2)
    expected = expected_trace(network, clip, np.arange(14)[:, None], factor=factor)
    if "crop" in name:
      expected[8:] += 50 * factor
    np.testing.assert_array_equal(np.concatenate(found[name]), expected, err_msg=name)
    counted = network.counted()
    if name == "crop":
      assert counted == once([*range(1, 13), *range(55, 65)], False), "those of each window once"
    else:
      assert counted == ({} if "same" in name else once(range(1, 15), False)), name


def test_equal_networks_share_programs(random_variables, monkeypatch):
  """Both STA+ do, and still compute their own maps, as their weights differ."""
  traced_once(monkeypatch, "_reason")
  clip, found = make_clip(5), {}
  for number, name in enumerate(networks.STUDENTS):
    network = networks.make_network(name, CONFIG, len(CATEGORIES))
    found[name] = DenseNetwork(network, random_variables(network, SIZE, seed=number), SIZE, 4)
  sta, short, long = found.values()
  assert short._programs is long._programs and short._programs is not sta._programs
  groups = Groups(np.stack([np.arange(5), np.arange(5)[::-1], np.full(5, 2)], axis=1))
  maps = [student.run(clip, groups=groups) for student in (short, long)]
  assert np.abs(maps[0] - maps[1]).max() > 1e-3


def test_clips_have_a_switch():
  """It is on where there is sound, and silence stays unheard; copies share what was computed of the frames."""
  clip = Clip(list(numbered(7)))
  assert clip.switch.tolist() == [1, 1, 0, 1, 1, 0, 1] and list(clip.targets) == list(range(7))
  turned = clip.with_switch(np.array([1, 0, 1, 0, 1, 0, 0]))
  assert turned.switch.tolist() == [1, 0, 0, 0, 1, 0, 0] and turned.switch.dtype == np.float32
  assert clip.switch.tolist() == [1, 1, 0, 1, 1, 0, 1] and turned.with_switch(np.ones(7)).switch.sum() == 5
  network, dense = make_trace(1, True)
  for each in (clip, turned):
    np.testing.assert_array_equal(seen(dense.run(each, (1,)))[:, -1], each.switch)
  assert network.counted() == once(range(1, 8))


class FakeTagger:
  """A tagger whose top category is the number of the second of sound."""

  def apply(self, variables, sound):
    return Classification(None, -jnp.abs(jnp.arange(50) - variables["shift"] - sound[:, 0, 0, :1]), None)


def test_a_tagger_hears_every_second_of_sound():
  for count in (1, 4, 11):
    confidences = make_tagger(FakeTagger(), {"shift": 2}, 4)(Clip(list(numbered(count))))
    assert confidences.shape == (count, 50) and confidences.max() == 0.5
    assert confidences.argmax(axis=1).tolist() == [i + 2 if i % 3 else 2 for i in range(1, count + 1)]


def test_samples_of_records():
  """Every frame has the second of sound around its time, normalised by its whole sound."""
  columns = np.broadcast_to(np.arange(500, dtype=np.float16), (257, 500))
  frames = np.zeros((9, 8, 8, 3), np.uint8)
  records = SimpleNamespace(
    clip_frames=lambda clip, size: frames if (clip, size) == (1, 6) else None,
    clip_columns=lambda clip: columns,
    has_sound=[False, True],
    sound_mean=[0, 100],
    sound_std=[0, 50],
    rate=[0, 4.0],
  )
  found = clip_samples(records, 1, 6)
  assert len(found) == 9 and all(frame.shape == (8, 8, 3) for frame, _ in found)
  for i, (_, sound) in enumerate(found[2:], 2):
    assert sound.shape == (257, 98) and sound.dtype == np.float32
    np.testing.assert_allclose(sound[5, 49], ((i / 4 * 16000 - SEGMENT / 2) / HOP - 100) / 50, atol=0.011)
  records.has_sound = [False, False]
  assert [sound for _, sound in clip_samples(records, 1, 6)] == [None] * 9
