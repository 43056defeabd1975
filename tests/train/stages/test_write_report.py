"""The gallery of the report: whose middle frames it has, with their sound."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from helpers.fake_records import NUM_FRAMES, fake_records

pytest.importorskip("tensorflow")

from stajax.media.spectrogram import window_columns
from stajax.train.stages import report_examples
from stajax.train.stages.report_examples import Gallery, TreeGallery
from stajax.train.stages.report_heldout import _decisive_clips


def test_the_gallery_has_middle_frames_of_every_tag_and_their_sound(tmp_path):
  records = fake_records(tmp_path / "heldout", number=6)

  def video(clip):
    count = NUM_FRAMES[clip]
    return SimpleNamespace(
      name=f"clip {clip}", num_frames=count, density=lambda frame: frame, fixations=lambda frame: (clip, frame)
    )

  videos = [video(clip) for clip in (4, 2, 5, 1, 3)]
  gallery = Gallery(records, videos)
  for each in videos:
    maps = {"sta": np.arange(each.num_frames), "row_01": np.arange(each.num_frames)}
    gallery.add(each, maps)
  gallery.add(video(0), {})  # it is not among the videos that are shown
  examples = gallery.examples()
  # In the order of the records: the first clips of all tags, and then the second ones.
  assert [example.title.split(",")[0] for example in examples] == [f"clip {clip}" for clip in (1, 2, 3, 5, 4)]
  assert examples[1].title == "clip 2, frame 7: bell (foreign, repeat)" and examples[2].title.endswith(": no tag")
  assert all("final_other_sound" in example.compared and example.note == "" for example in examples)
  for example, clip in zip(examples, (1, 2, 3, 5, 4)):
    frame = NUM_FRAMES[clip] // 2
    assert example.maps == {"sta": frame} and example.viewers == frame and example.fixations == (clip, frame)
    np.testing.assert_array_equal(example.frame, records.clip_frames(clip)[frame])
    if not records.has_sound[clip]:
      assert example.sound is None and clip == 2
      continue
    columns = records.clip_columns(clip)
    at = window_columns(frame / records.rate[clip], columns.shape[1])
    np.testing.assert_array_equal(example.sound, columns[:, at])


def test_preferred_clips_come_first_in_the_gallery(tmp_path):
  """Only some ablated maps are drawn, and a line says whose sound the other sound is."""
  records = fake_records(tmp_path / "heldout", number=6)
  videos = [
    SimpleNamespace(name=f"clip {clip}", num_frames=1, density=lambda frame: 0, fixations=lambda frame: 0)
    for clip in range(6)
  ]
  gallery = Gallery(records, videos, {"clip 2", "clip 4", "clip 5", "elsewhere"}, "note of {}".format)
  one = np.zeros((1, 2, 2))
  names = ("final", "final_other_sound", "final_no_sound", "final_no_motion", "sta_no_sound", "sta", "row_01")
  for video in videos:
    gallery.add(video, dict.fromkeys(names, one))
  examples = gallery.examples()
  # Those of bell and drum, then the second one of bell; then the others in the same way.
  assert [example.title.split(",")[0] for example in examples] == [f"clip {clip}" for clip in (2, 5, 4, 0, 1, 3)]
  assert list(examples[0].maps) == ["final", "final_other_sound", "final_no_sound", "sta"]
  assert examples[0].note == "note of clip 2"


def test_decisive_clips_have_rivals_and_their_own_sound():
  groups = {"synthetic/rivals": ["a", "b"], "synthetic/foreign": ["b", "c"], "synthetic/no_rivals": ["d"]}
  assert _decisive_clips(groups) == {"a"} and _decisive_clips({"x/foreign": ["a"]}) == _decisive_clips({}) == set()


def test_half_of_the_training_clips_that_are_shown_are_left_out_of_learning(tmp_path, monkeypatch):
  records = fake_records(tmp_path / "train", number=6)  # bell and drum, horn, bell, none, bell, drum
  monkeypatch.setattr(report_examples, "_training_example", lambda run, predictor, clip: clip)
  monkeypatch.setattr(report_examples, "_EXAMPLES", 4)

  def shown(*left_out):
    is_left_out = np.isin(np.arange(6), left_out)
    run = SimpleNamespace(data=SimpleNamespace(records=records, is_validation=is_left_out))
    return report_examples.training_examples(run, None)

  assert shown() == [0, 1, 5, 2]  # tags take turns, and the clip without a tag is not shown
  assert shown(0, 2, 4) == [1, 5, 0, 2]
  assert shown(5) == [0, 1, 2, 5]


def test_scored_videos_are_shown_by_turns_with_what_viewers_saw(tmp_path):
  """Of every database one video after the other; each by the middle one of its scored frames."""

  def video(database, name, frames=9):
    path = tmp_path / f"{name}.png"
    Image.fromarray(np.full((4, 6, 3), 50, np.uint8)).save(path)
    own = {"density": lambda frame: ("density", frame), "fixations": lambda frame: ("fixations", frame)}
    return SimpleNamespace(database=database, name=name, frame_paths=[path] * frames, **own)

  videos = [video("A", f"a{i}") for i in range(9)] + [video("B", f"b{i}") for i in range(2)] + [video("C", "c")]
  frames = [0, 2, 4, 6]

  def maps(video, wanted):
    for start in (0, 2):
      chunk = wanted[start : start + 2]
      yield list(chunk), {name: np.array(chunk) for name in ("sta", "final", "final_no_switch", "spectral_residual")}

  gallery = TreeGallery([(video, [] if video.name == "c" else frames) for video in videos])
  for each in videos:
    chunks = list(gallery.watch(maps)(each, frames))
    assert [chunk for chunk, _ in chunks] == [[0, 2], [4, 6]] and set(chunks[0][1]) > {"spectral_residual"}
  examples = gallery.examples()
  names = ["A/a0", "B/b0", "A/a1", "B/b1", *(f"A/a{i}" for i in range(2, 8))]
  assert [example.title for example in examples] == [f"{name}, frame 5" for name in names]
  for example in examples:
    assert example.maps == {"sta": 4, "final": 4} and example.frame.shape == (4, 6, 3)
    assert (example.viewers, example.fixations) == (("density", 4), ("fixations", 4))
