"""The gallery of the report: whose middle frames it has, with their sound."""

from types import SimpleNamespace

import numpy as np
import pytest

from helpers.fake_records import NUM_FRAMES, fake_records

pytest.importorskip("tensorflow")

from stajax.media.spectrogram import window_columns
from stajax.train.stages.write_report import Gallery


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
