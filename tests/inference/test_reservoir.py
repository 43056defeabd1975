"""Long companions from all over a video: the fragments, where they are read, and what the student makes of them."""

import numpy as np
import pytest

from helpers import tiny
from helpers.media_files import clicks, moving, write_video
from helpers.tiny import CONFIG, make_samples, whole
from stajax import companions
from stajax.eyetracking import read_tree
from stajax.inference import reservoir
from stajax.inference.clip import Clip, joined, windows
from stajax.inference.reservoir import SIZE, Fragments, read_file_fragments
from stajax.inference.tree_video import read_fragments
from stajax.media.keyframes import sampled_runs
from stajax.media.sound_windows import file_windows
from stajax.media.video import probe
from stajax.predict.per_video import open_video
from stajax.prepare import tree_files

small_programs = tiny.small_programs
random_networks, model_folder, predictor = tiny.random_networks, tiny.model_folder, tiny.predictor


def test_fragments_of_a_file_hear_the_second_around_their_middle(tmp_path):
  sound = np.random.default_rng(0).normal(0, 0.1, (1, 40 * 16000)).astype(np.float32)
  path = write_video(tmp_path / "a.mkv", moving(800), rate=20, options={"g": "20"}, sound=sound,
                     sound_codec="pcm_s16le", sound_rate=16000)  # fmt: skip
  windows_of, info = file_windows(path, []), probe(path)
  windows_of.window(15.0)  # prediction has gone on meanwhile
  found = read_file_fragments(info, windows_of, 4.0, 1, 24, seed=0)
  assert len(found.runs) == SIZE == len(found.at) and (np.diff(found.at) >= 0).all() and found.at[-1] < 160
  times = [time for time, _ in sampled_runs(path, SIZE, 1 / 4, 24, 0)]
  np.testing.assert_array_equal(found.at, np.round(np.array(times) * 4))
  fresh = file_windows(path, [])
  for time, ((_, none), (_, heard), (_, nothing)) in zip(times, found.runs, strict=True):
    assert none is nothing is None
    np.testing.assert_array_equal(heard, fresh.window(time))
  assert all(heard is None for _, (_, heard), _ in read_file_fragments(info, None, 4.0, 1, 24, seed=0).runs)


@pytest.mark.usefixtures("small_programs")
@pytest.mark.parametrize("number", [SIZE, pytest.param(9, marks=pytest.mark.slow)])
def test_windows_of_a_long_video_have_companions_from_the_reservoir(predictor, random_networks, monkeypatch, number):
  """The maps of STA+ long equal those of the whole network, the others do not change, and fragments are read once."""
  monkeypatch.setattr(predictor, "_window", (4, 14))
  samples, asked = make_samples(30, heard=1), []
  runs = [[*make_samples(3, seed=100 + i, heard=1)] for i in range(number)]
  at = np.arange(number) * 31 // number

  def fragments():
    asked.append(1)
    return Fragments([[(a, None), b, (c, None)] for (a, _), b, (c, _) in runs], at)

  kept, parts = predictor.make_reservoir(fragments), []
  for clip in windows(samples, length=14):
    parts.append(predictor.start_method_maps(clip, kept)())
  found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
  assert asked == [1] and len(found["final"]) == 30
  final = np.array(list(predictor.maps(samples, 1, fragments)))
  np.testing.assert_array_equal(final, found["final"])
  alone = tiny.method_maps(predictor, samples)
  for name in ("sta", "sta_plus_short"):
    np.testing.assert_allclose(found[name], np.concatenate([part[name] for part in alone]), atol=1e-5)
  assert np.abs(found["sta_plus_long"] - np.concatenate([part["sta_plus_long"] for part in alone])).max() > 1e-4

  network, variables, size = random_networks["sta_plus_long"]
  video, others = predictor.with_switch(Clip(samples)), predictor.with_switch(joined(runs))
  assert 0 < others.switch.sum() < len(others)
  chosen, are_two = companions.far_items(CONFIG.seed, np.arange(30), at, 4)
  assert are_two.all()
  fragments_of = [Clip(run, switch=others.switch[3 * i : 3 * i + 3]) for i, run in enumerate(runs)]
  gathered = [[(video, i), *((fragments_of[p], 1) for p in chosen[i])] for i in range(30)]
  expected = [whole(network, variables, gathered[i : i + 12], size) for i in range(0, 30, 12)]
  np.testing.assert_allclose(found["sta_plus_long"], np.concatenate(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("small_programs")
def test_short_videos_need_no_reservoir(predictor, tmp_path, monkeypatch):
  """A file that is one window is not read for fragments; a longer one is, once."""
  asked, real = [], reservoir.read_file_fragments
  monkeypatch.setattr(reservoir, "read_file_fragments", lambda *arguments: asked.append(arguments) or real(*arguments))
  for count, times in ((60, 0), (400, 1)):
    wave = clicks(count / 4, np.arange(0.5, count / 4, 3), 16000)
    path = write_video(tmp_path / f"{count}.mp4", moving(count), rate=4, sound=wave, sound_rate=16000,
                       options={"g": "4"})  # fmt: skip
    assert len(list(open_video(predictor, path))) == count
    assert len(asked) == times
  assert asked[0][2:] == (4.0, 1, predictor.side, CONFIG.seed)


def test_fragments_of_a_tree(tmp_path):
  """They are random frames with neighbours that are as far away as the grid's."""
  frames = [np.full((8, 8, 3), i, np.uint8) for i in range(150)]
  wave = np.random.default_rng(0).normal(0, 0.1, 16000 * 38)
  tree_files.write_video(tmp_path, "Tiny", "v", frames, wave, None)
  tree_files.write_fold_lists(tmp_path, "Tiny", [("v", 150, 4.0)])
  (video,) = read_tree(tmp_path, need_annotations=False).videos
  found, heard = read_fragments(video, 2, 8, seed=5), file_windows(video.sound, [], 37.5)
  assert len(found.runs) == SIZE == len(set(found.at.tolist())) and (np.diff(found.at) > 0).all()
  assert found.at[0] < 20 and found.at[-1] > 130
  for middle, run in zip(found.at, found.runs, strict=True):
    expected = [abs(middle - 2), middle, 149 - abs(149 - middle - 2)]
    assert np.abs([int(frame.mean()) - i for (frame, _), i in zip(run, expected, strict=True)]).max() <= 1
    np.testing.assert_array_equal(run[1][1], heard.window(middle / 4))
    assert run[0][1] is run[2][1] is None
