"""A tree in the layout of the AViMoS challenge: prepared, predicted as a submission, and scored as the challenge does.

The expected scores are computed from the challenge's own files, which are decoded here once more.
"""

import json
import shutil

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange

from helpers import tiny
from helpers.media_files import write_video
from helpers.scores import avimos_by_hand
from stajax.evaluate import __main__ as evaluate
from stajax.eyetracking import read_tree
from stajax.media.grey_video import GreyWriter, grey_frames
from stajax.predict import __main__ as predict
from stajax.predict.per_dataset import missing_videos
from stajax.prepare import __main__ as prepare

random_networks, model_folder, small_programs = tiny.random_networks, tiny.model_folder, tiny.small_programs
SIZE, FRAMES, METRICS = (24, 40), 5, ("nss", "cc", "sim", "auc_judd")
VIDEOS = {"public_test": ["0101", "0102"], "private_test": ["0201"], "train": ["0001"]}


def write_grey(path, frames, pixel_format):
  """Writes grey frames (n, H, W) up to 1023 or 255, as the challenge's maps are: yuv, limited range, crf 0."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=25, options={"crf": "0"})
    (stream.height, stream.width), stream.pix_fmt = frames.shape[1:], pixel_format
    for number, values in enumerate(frames):
      deep = "10le" in pixel_format
      frame = av.VideoFrame.from_ndarray(
        values.astype(np.uint16 if deep else np.uint8), format="gray10le" if deep else "gray"
      )
      frame = frame.reformat(format=pixel_format, dst_color_range=ColorRange.MPEG)
      frame.pts = number
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def decode(path):
  """What FFmpeg writes as png files, and the scorer reads as the mean of three channels."""
  with av.open(str(path)) as container:
    for frame in container.decode(video=0):
      deep = frame.format.components[0].bits > 8
      yield frame.to_ndarray(format="rgb48le" if deep else "rgb24").astype(float).mean(axis=2)


@pytest.fixture(scope="module")
def challenge(tmp_path_factory):
  """Four videos, one of them to train: with 10 and 8 bits, repeated fixations, and one list on the diagonal."""
  root, rng = tmp_path_factory.mktemp("challenge"), np.random.default_rng(0)
  (root / "Videos").mkdir()
  (root / "TrainTestSplit.json").write_text(json.dumps(VIDEOS))
  y, x = np.mgrid[: SIZE[0], : SIZE[1]]
  for number, name in enumerate(name for names in VIDEOS.values() for name in names):
    kind = "Train" if name == "0001" else "Test"
    write_video(root / "Videos" / f"{name}.mp4", rng.integers(0, 256, (FRAMES, *SIZE, 3), dtype=np.uint8), rate=25)
    centres = rng.uniform((2, 2), (SIZE[0] - 2, SIZE[1] - 2), (FRAMES, 2))
    bells = np.exp(-((y - centres[:, :1, None]) ** 2 + (x - centres[:, 1:, None]) ** 2) / 40)
    deep = number % 2 == 0
    saliency = root / f"Saliency{kind}" / kind / f"{name}.mp4"
    write_grey(saliency, bells * (1023 if deep else 255), "yuv420p10le" if deep else "yuv420p")
    fixations = [[[int(rng.integers(n)) for n in SIZE] for _ in range(3)] for _ in range(FRAMES)]
    fixations[0].append(fixations[0][0])
    fixations[1] = [[3, 3], [9, 9], [9, 9]]
    folder = root / f"Fixations{kind}" / kind / name
    (folder / "fixations_maps").mkdir(parents=True)
    (folder / "fixations.json").write_text(json.dumps(fixations))
  return root


@pytest.fixture(scope="module")
def tree(challenge, tmp_path_factory):
  out = tmp_path_factory.mktemp("prepared") / "tree"
  assert prepare.main(["avimos", "--root", str(challenge), "--out", str(out), "--processes", "1"]) == 0
  return out


def expected_scores(challenge, submission, name):
  fixations = json.loads(next(challenge.glob(f"Fixations*/*/{name}/fixations.json")).read_text())
  saliency = decode(next(challenge.glob(f"Saliency*/*/{name}.mp4")))
  rows = [avimos_by_hand(*each) for each in zip(decode(submission / f"{name}.mp4"), fixations, saliency, strict=True)]
  return {metric: np.mean([row[metric] for row in rows]) for metric in METRICS}


@pytest.mark.parametrize("kind", ["model", "8 bits", "10 bits"])
def test_a_submission_is_scored_as_the_challenge_does(kind, challenge, tree, tmp_path, request):
  submission, names = tmp_path / "submission", [name for part in list(VIDEOS)[:2] for name in VIDEOS[part]]
  if kind == "model":
    request.getfixturevalue("small_programs")
    model = request.getfixturevalue("model_folder")
    arguments = ["--model", str(model), "--data", f"avimos:{tree}", "--out", str(submission), "--fast"]
    assert predict.main(arguments) == 0
    assert not missing_videos(submission, read_tree(tree).videos, as_videos=True)
    assert sorted(path.name for path in submission.glob("*.mp4")) == [f"{name}.mp4" for name in names]
  else:
    rng = np.random.default_rng(1)
    for name in names:
      maps, deep = rng.random((FRAMES, 12, 18)), kind == "10 bits"
      write_grey(submission / f"{name}.mp4", maps * (1023 if deep else 255), "yuv420p10le" if deep else "yuv420p")
  scores = [
    "--maps",
    str(submission),
    "--data",
    f"avimos:{tree}",
    "--out",
    str(tmp_path / "scores"),
    "--processes",
    "1",
  ]
  assert evaluate.main(scores) == 0
  assert json.loads((tmp_path / "scores" / "evaluation.json").read_text())["protocol"] == "avimos"
  found = json.loads((tmp_path / "scores" / "scores.json").read_text())
  by_name = {name: expected_scores(challenge, submission, name) for name in names}
  for group, members in {"AViMoS": names, "AViMoS/public_test": names[:2], "AViMoS/private_test": names[2:]}.items():
    for metric in METRICS:
      expected = np.mean([by_name[name][metric] for name in members])
      assert found[group]["maps"][metric] == pytest.approx(expected, abs=2e-6), (group, metric)


def test_grey_videos_keep_every_number(tmp_path):
  maps = np.random.default_rng(0).integers(0, 256, (7, 33, 47), dtype=np.uint8)
  with GreyWriter(tmp_path / "grey", 29.97) as writer:
    writer.write(maps[:3])
    writer.write(maps[3:])
  np.testing.assert_array_equal(np.stack(list(grey_frames(tmp_path / "grey"))), maps)


def test_what_is_missing_is_named(challenge, tree, tmp_path, capsys):
  copy = tmp_path / "copy"
  shutil.copytree(challenge, copy)
  (copy / "SaliencyTest" / "Test" / "0101.mp4").unlink()
  (copy / "Videos" / "0201.mp4").unlink()
  assert prepare.main(["avimos", "--root", str(copy), "--check"]) == 1
  text = capsys.readouterr().out
  assert "0201.mp4" in text and "of the part private_test" in text and "can be predicted, but not scored" in text
  assert prepare.main(["avimos", "--root", str(copy), "--check", "--parts", "final"]) == 2
  assert "no part final, expected some of public_test, private_test, train" in capsys.readouterr().err
  (copy / "FixationsTest" / "Test" / "0102" / "fixations.json").write_text("[[[1, 2, 3]]]")
  (copy / "Videos" / "0102.mp4").rename(copy / "Videos" / "0201.mp4")
  assert evaluate.main(["--maps", str(copy), "--data", f"avimos:{copy}", "--out", str(tmp_path / "scores")]) == 2
  assert "stajax prepare avimos --root" in capsys.readouterr().err


def test_bad_fixations_are_refused_and_those_outside_are_counted(challenge, tmp_path, capsys):
  copy = tmp_path / "copy"
  shutil.copytree(challenge, copy)
  folder = copy / "FixationsTest" / "Test"
  (folder / "0102" / "fixations.json").write_text("[[[1, 2, 3]]]")
  fixations = json.loads((folder / "0101" / "fixations.json").read_text())
  fixations[2], fixations[3] = [], [*fixations[3], [SIZE[0], 0]]
  (folder / "0101" / "fixations.json").write_text(json.dumps(fixations))
  arguments = ["avimos", "--root", str(copy), "--out", str(tmp_path / "tree"), "--parts", "public_test"]
  assert prepare.main([*arguments, "--processes", "1"]) == 1
  summary = json.loads((tmp_path / "tree" / "AViMoS_summary.json").read_text())
  assert summary["counts"]["annotated_frames"] == FRAMES - 1
  assert summary["notes"]["0101"] == ["fixations: 1 outside of the picture left out"]
  assert "frame 1: [[1, 2, 3]], expected a list of [row, column]" in summary["skipped"][0]["reason"]
