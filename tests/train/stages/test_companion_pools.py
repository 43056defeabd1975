"""Companions of other clips: fragments of the chosen training clips, each with its own neighbours, box and switch."""

import numpy as np
import pytest

from helpers.fake_records import fake_records
from helpers.runs import finish, make_run, set_table

pytest.importorskip("tensorflow")

from stajax import companions
from stajax.train.stages.companion_pools import compute_companions

NAMES = ("s_plus_cross", "st_plus_cross", "sa_plus_cross")


class Seen:
  """A network whose fragments say the frame, its neighbours in the clip that it is given, the box and the switch."""

  def __init__(self, name):
    self.name = name

  def nodes(self, clip):
    frames = np.stack([frame[16, 16] for frame, _ in clip.samples]).astype(np.float32)
    before, after = np.roll(frames, 1, axis=0), np.roll(frames, -1, axis=0)
    return np.column_stack([frames, before, after, clip.boxes, clip.switch])[:, None, None]


def test_companions_are_fragments_of_the_pools_clips(tmp_path):
  records = fake_records(tmp_path / "train", number=6)
  run = make_run(tmp_path, records)
  switch = (np.arange(43) % 2).astype(np.uint8)
  boxes = np.random.default_rng(0).integers(0, 64, (43, 4)).astype(np.float32)
  for name, stage, values in (("tag_heard", "tag_heard", switch), ("boxes", "scam_coarse", boxes)):
    set_table(run, name, values)
    finish(run, stage)
  found = compute_companions(run.data, run.config.seed, Seen)
  assert set(found) == {"clips", *NAMES, "sa_plus_cross/heard"}
  items = companions.pool_items(records.tags, records.num_frames, run.config.seed)
  assert found["clips"].shape == (3, 3) and found["clips"].dtype == np.int32
  for tag, members in enumerate(items):
    assert found["clips"][tag].tolist() == [*members[:, 0], *[-1] * (3 - len(members))]
    for place, (clip, frame) in enumerate(members.tolist()):
      assert records.tags[clip, tag]
      pixels = records.clip_frames(clip)[:, 16, 16].astype(np.float32)
      count = len(pixels)
      last = max(count - 1, 0)
      near = [pixels[abs(frame - 1) if count > 1 else 0], pixels[last - abs(last - frame - 1) if count > 1 else 0]]
      at = records.first_frame[clip] + frame
      expected = np.concatenate([pixels[frame], *near, boxes[at], [switch[at] * records.has_sound[clip]]])
      heard = np.append(expected[:-1], records.has_sound[clip])
      for name in NAMES:
        np.testing.assert_array_equal(found[name][tag, place, 0, 0], expected.astype(np.float16))
      np.testing.assert_array_equal(found["sa_plus_cross/heard"][tag, place, 0, 0], heard.astype(np.float16))
  assert all(x.dtype == np.float16 for name, x in found.items() if name != "clips")
