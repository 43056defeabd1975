"""Prediction with a model folder: the students' maps equal those of the whole networks, and the final map is Eq. 17."""

import dataclasses

import jax
import numpy as np
import pytest

from helpers import tiny
from helpers.tiny import CONFIG, SIZE, STORED, make_samples, walk, whole
from stajax import companions as groups
from stajax import model as models
from stajax import networks
from stajax.data.frame_sides import decode_ratio
from stajax.inference import predictor as predictor_module
from stajax.inference.clip import Clip, windows
from stajax.inference.pending import finish_in_turn
from stajax.inference.predictor import Predictor, load_predictor, to_uint8

small_programs = tiny.small_programs
random_networks, model_folder, predictor = tiny.random_networks, tiny.model_folder, tiny.predictor
pytestmark = pytest.mark.usefixtures("small_programs")


def minmax(x):
  return (x - x.min()) / (x.max() - x.min()) if np.ptp(x) else np.zeros_like(x)


def students_by_hand(random_networks, clip):
  """Returns the maps of every student by the whole networks, on groups found by walking."""
  maps = {}
  for name, (network, variables, size) in random_networks.items():
    if name == networks.SWITCH:
      continue
    gathered = []
    for i in range(len(clip)):
      companions = ()
      if name.endswith("short"):  # fragments of three that touch
        companions = [walk(i, side * 3 * clip.reach, len(clip)) for side in (-1, 1)]
      elif name.endswith("long"):
        companions = groups.long_companions(CONFIG.seed, 0, i, len(clip), 4 * clip.reach).tolist()
      gathered.append([(clip, at) for at in (i, *companions)])
    maps[name] = whole(network, variables, gathered, size)
  return maps


def final_by_hand(maps):
  """Computes Eq. 17 frame by frame."""
  result = []
  for three in zip(*maps.values(), strict=True):
    sta, short, long = (np.asarray(jax.image.resize(x, (SIZE, SIZE), "bilinear")) for x in three)
    common = minmax(minmax(sta) * minmax(short) * minmax(long))
    result.append((common + minmax(sta + short + long)) / 2)
  return np.array(result)


@pytest.mark.parametrize("count, reach, heard", [(11, 2, 0.7), (1, 1, 1), (1, 3, 0), (3, 1, 0)])
def test_maps_are_those_of_the_whole_networks(predictor, random_networks, count, reach, heard):
  """Some clips have one frame or no sound; none has a tag."""
  samples = make_samples(count, heard=heard)
  clip = Clip(samples, reach)
  network, variables, _ = random_networks[networks.SWITCH]
  _, confidences = whole(network, variables, [[(clip, i)] for i in range(count)])
  switched = clip.with_switch(confidences[:, 0] > 0.25)
  if count == 11:
    assert 0 < switched.switch.sum() < clip.switch.sum() < 11
  np.testing.assert_array_equal(predictor.with_switch(clip).switch, switched.switch)
  (found,) = tiny.method_maps(predictor, samples, reach)
  assert list(found) == [*networks.STUDENTS, "final", "final_no_switch", "spectral_residual"]
  expected = students_by_hand(random_networks, switched)
  for name, maps in expected.items():
    assert found[name].dtype == np.float32 and np.std(maps) > 1e-4
    np.testing.assert_allclose(found[name], maps, rtol=1e-4, atol=1e-5)
  # From the students' own maps, since scaling to [0, 1] may enlarge rounding; they were compared above.
  np.testing.assert_allclose(found["final"], final_by_hand({name: found[name] for name in expected}), atol=2e-3)
  final = list(predictor.maps(iter(samples), reach))
  assert all(x.shape == (SIZE, SIZE) and x.dtype == np.float32 and 0 <= x.min() < x.max() <= 1 for x in final)
  np.testing.assert_array_equal(final, found["final"])
  heard_maps = {name: x.astype(np.float32) for name, x in students_by_hand(random_networks, clip).items()}
  np.testing.assert_allclose(found["final_no_switch"], final_by_hand(heard_maps), atol=2e-2)
  assert np.array_equal(found["final_no_switch"], found["final"]) == (switched.switch.sum() == clip.switch.sum())


def test_sta_alone_predicts_long_videos_in_windows(model_folder, random_networks, monkeypatch):
  """STA sees the two neighbours of a frame: its maps are those of the whole video, which is longer than a batch."""
  fast, samples = load_predictor(model_folder / "model", 16, "sta"), make_samples(24)
  (found,) = tiny.method_maps(fast, samples)
  assert list(found) == ["sta", "spectral_residual"]
  clip, (network, variables, _) = fast.with_switch(Clip(samples)), random_networks["sta"]
  expected = [whole(network, variables, [[(clip, i)] for i in part]) for part in (range(12), range(12, 24))]
  np.testing.assert_allclose(found["sta"], np.concatenate(expected), rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(list(fast.maps(iter(samples))), found["sta"])
  parts = [fast.start_method_maps(clip)()["sta"] for clip in windows(samples, length=14)]
  assert [len(part) for part in parts] == [14, 10]
  np.testing.assert_allclose(np.concatenate(parts), found["sta"], rtol=1e-5, atol=1e-6)
  assert list(fast.maps(iter([]))) == []
  monkeypatch.setattr(predictor_module, "SHORT_WINDOW", 5)  # the least is a batch
  np.testing.assert_allclose(list(fast.maps(iter(samples))), found["sta"], rtol=1e-5, atol=1e-6)


def test_one_student_alone_encodes_frames_in_one_program(model_folder, monkeypatch):
  """Nothing else reads the stages of its backbone, which would take more memory than what it makes of them."""
  asked = list[bool]()
  made = predictor_module.make_dense
  monkeypatch.setattr(
    predictor_module, "make_dense", lambda *given, **named: asked.append(named["shares"]) or made(*given, **named)
  )
  Predictor(models.load(model_folder / "model", lambda _: ("sta",)), 16, ("sta",))
  assert asked == [False]
  load_predictor(model_folder / "model", 16)
  assert asked == [False, True, True, True, True]


def test_frames_are_as_large_as_training_decodes_them(model_folder):
  model = models.load(model_folder / "model", lambda _: ("sta",))
  for side, expected in ((SIZE, SIZE), (2 * SIZE, SIZE), (2 * SIZE - 1, SIZE), (4 * SIZE + 2, SIZE + 1), (20, 20)):
    stored = dataclasses.replace(model, side=side)
    assert Predictor(stored, 16, ("sta",)).side == stored.side_of_frames(["sta"]) == expected
    assert side < SIZE or decode_ratio(side, SIZE) == -(-side // expected)


def test_clips_of_other_lengths_compile_nothing(predictor, caplog):
  """Buffers have one size for up to a batch of frames, and then sizes that double."""
  tiny.method_maps(predictor, make_samples(11))
  with jax.log_compiles(), caplog.at_level("WARNING"):
    for count, reach in ((2, 1), (16, 3), (5, 9)):
      (found,) = tiny.method_maps(predictor, make_samples(count), reach)
      assert len(found["final"]) == count
    assert not [record.message for record in caplog.records if "Compiling" in record.message]
    jax.jit(lambda x: x + 1)(np.zeros(11))
    assert any("Compiling" in record.message for record in caplog.records)


def test_the_next_window_is_started_before_one_is_waited_for():
  for count in range(4):
    events = []

    def started(count=count, events=events):
      for i in range(count):
        events.append(f"start {i}")
        yield lambda i=i: events.append(f"wait {i}") or i

    assert list(finish_in_turn(started())) == list(range(count))
    expected = [f"start {i}" for i in range(count)]
    for i in range(count):
      expected.insert(2 * i + 2 if i < count - 1 else len(expected), f"wait {i}")
    assert events == expected


def test_a_predictor_describes_its_model(predictor):
  assert (predictor.rate, predictor.side, predictor.trained_on) == (4, STORED, "synthetic")
  assert len(predictor.notes) == 1 and predictor.notes[0].startswith("synthetic:")


def test_maps_as_bytes():
  maps = np.array([[[0.0, 0.5], [0.25, 0.1]], [[0.0, 0.0], [0.0, 0.0]]])
  assert to_uint8(maps).tolist() == [[[0, 255], [128, 51]], [[0, 0], [0, 0]]]
  assert to_uint8(maps).dtype == np.uint8
