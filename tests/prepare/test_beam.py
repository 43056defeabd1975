"""Preparation on Apache Beam: several workers give the same bytes as a local run.

pip install -e '.[train,test,beam]' && pytest tests/prepare/test_beam.py
"""

import numpy as np
import pytest

from helpers.fake_records import contents
from helpers.media_files import clicks, ramp, write_video

pytest.importorskip("apache_beam")
pytest.importorskip("tensorflow_datasets")

from stajax.media.limits import Failure, Limits
from stajax.prepare import beam
from stajax.prepare.__main__ import main
from stajax.prepare.assembly import assemble, write_shards
from stajax.prepare.clip import MediaSettings
from stajax.prepare.clip_staging import ClipStaging
from stajax.prepare.listing import Item, Listing
from stajax.prepare.media_records import collect_outcomes, prepare
from stajax.prepare.media_tasks import plan_tasks

OPTIONS = ("--runner=DirectRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2")
SETTINGS = MediaSettings(side=32)


@pytest.fixture(scope="module")
def listing(tmp_path_factory) -> Listing:
  root = tmp_path_factory.mktemp("media")
  for i in range(4):
    sound = clicks(0.8, [0.2 * i]) if i % 2 else None
    write_video(root / f"{i}.mp4", np.roll(ramp(6 + i), i, axis=0), sound=sound)
  (root / "broken.mp4").write_bytes(b"no video")
  parts = {"0": "train", "1": "train", "2": "test", "3": "train", "broken": "train"}
  items = tuple(Item(name, root / f"{name}.mp4", ("bell",), part) for name, part in parts.items())
  return Listing("folders", root, ("bell", "drum"), items)


def test_beam_gives_the_bytes_of_a_local_run(listing, tmp_path):
  local = prepare(listing, tmp_path / "local", SETTINGS)
  on_beam = prepare(listing, tmp_path / "beam", SETTINGS, workers=beam.BeamWorkers(OPTIONS))
  assert on_beam == local and [entry["file"] for entry in local["train"]["skipped"]] == ["broken.mp4"]
  expected = contents(tmp_path / "local")
  assert contents(tmp_path / "beam") == expected and any("array_record" in path for path in expected)


def test_many_shards_by_several_workers(listing, tmp_path):
  """Every clip is a unit of work and a shard of its own."""
  workers, staging = beam.BeamWorkers(OPTIONS, chunk=1), ClipStaging(tmp_path / "staging")
  tasks = plan_tasks(listing, "train", staging.folder, SETTINGS, Limits())
  outcomes = workers.stage(tasks, SETTINGS, Limits())
  keys, summary = collect_outcomes(listing, tasks, outcomes, SETTINGS, Limits())
  assert len(keys) == 3 and len(summary["skipped"]) == 1
  for name, write in (("local", write_shards), ("beam", workers.write)):
    assemble(staging, keys, tmp_path / name, listing.categories, summary, max_shard_bytes=1, write=write)
  shards = contents(tmp_path / "beam")
  assert shards == contents(tmp_path / "local") and sum("frames-data" in path for path in shards) == 3


def test_tasks_that_a_limit_ended_are_named_and_tried_again(listing, tmp_path, monkeypatch):
  monkeypatch.setattr(beam.BeamWorkers, "_run", lambda self, function, count: [function(i) for i in range(count)])
  workers, staging = beam.BeamWorkers((), chunk=2), ClipStaging(tmp_path / "staging")
  tasks = plan_tasks(listing, "train", staging.folder, SETTINGS, Limits())
  with monkeypatch.context() as patch:
    patch.setattr(
      beam, "run_in_children", lambda function, tasks, *_: ((i, Failure("too slow")) for i, _ in enumerate(tasks))
    )
    assert {outcome.reason for outcome in workers.stage(tasks, SETTINGS, Limits())} == {"too slow"}
  outcomes = workers.stage(tasks, SETTINGS, Limits())
  assert [bool(outcome.reason) for outcome in outcomes] == [task.item.name == "broken" for task in tasks]


def test_a_failing_pipeline_is_one_line(listing, tmp_path, monkeypatch, capsys):
  (listing.root / "bell").mkdir(exist_ok=True)
  write_video(listing.root / "bell" / "a.mp4", ramp(3))
  arguments = ["folders", "--root", str(listing.root), "--out", str(tmp_path / "out"), "--side", "32"]
  assert main([*arguments, "--beam=--runner=NoSuchRunner"]) == 2
  error = capsys.readouterr().err
  assert "Beam pipeline failed" in error and "NoSuchRunner" in error and len(error.splitlines()) == 1
