"""The main command with small networks: it is run once in one go and once with kills, and then the model is used."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from helpers.manifests import edit, reseal
from helpers.tiny_training import CONFIG
from stajax import networks
from stajax.inference.predictor import load_predictor
from stajax.nets.shared_students import COMMON
from stajax.report.table_1 import ROWS
from stajax.weights import store

NETWORKS = (*networks.SOURCES, *networks.TAGGERS, networks.SWITCH, *networks.STUDENTS)
TABLES = {"tag_heard": "tag_heard", "scam_coarse": "boxes"}
"""The tables that stages write, by stage."""
STAGES = {"data", *NETWORKS, *TABLES, "scam_plus", "model", "report"}
METHODS = {
  *("centre", "uniform", "cam_s_coarse", "cam_st_coarse", "cam_sa_coarse", "scam_coarse"),
  *("cam_s", "cam_st", "cam_sa", "scam_average", "scam", "scam_plus"),
  *("sta", "sta_plus_short", "sta_plus_long", "final", "final_no_switch"),
}
STUDENTS = (*networks.STUDENTS, "final")
ABLATED = {f"{name}_{which}_sound" for name in STUDENTS for which in ("other", "no")}
ABLATED |= {"final_no_motion", "final_no_companions"}
METRICS = {"auc_judd", "s_auc", "nss", "sim", "cc"}


def run(*arguments: str, **options) -> subprocess.Popen:
  environment = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiles faster; all runs have it
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }
  return subprocess.Popen(
    [sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
  )


def finish(process: subprocess.Popen, expected: int = 0) -> str:
  output = process.communicate(timeout=500)[0].decode()
  assert process.returncode == expected, output[-4000:]
  return output


def train_in(workdir: Path) -> tuple[str, ...]:
  return ("-m", "stajax.train", "--config", str(workdir.parent / "tiny.py"), "--workdir", str(workdir))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
  folder = tmp_path_factory.mktemp("train")
  (folder / "tiny.py").write_text(CONFIG)
  return folder


@pytest.fixture(scope="module")
def trained(place) -> Path:
  """The work folder of an uninterrupted run."""
  finish(run(*train_in(place / "whole")))
  return place / "whole"


def done(workdir: Path, stage: str) -> dict:
  return json.loads((workdir / "stages" / stage / "done.json").read_text())


def contents(folder: Path) -> dict[str, bytes]:
  return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_done_stages_name_the_digest_of_their_weights(trained):
  assert {path.parent.name for path in trained.glob("stages/*/done.json")} == STAGES
  for name in NETWORKS:
    store = (trained / "stages" / name / "weights.safetensors").read_bytes()
    assert hashlib.sha256(store).hexdigest() == done(trained, name)["sha256"]
    if name in networks.MODEL_NETWORKS:
      assert (trained / "model" / f"{name}.safetensors").read_bytes() == store
  assert len({done(trained, name)["sha256"] for name in NETWORKS}) == len(NETWORKS) == 21
  assert set(done(trained, "model")["sha256"]) == set(networks.MODEL_NETWORKS)
  companions = (trained / "stages" / "scam_plus" / "companions.safetensors").read_bytes()
  assert (trained / "model" / "companions.safetensors").read_bytes() == companions


def test_stages_count_what_they_found(trained):
  frames = done(trained, "data")["frames"]
  assert frames == 6 * 8
  counts = json.loads((trained / "data" / "train" / "summary.json").read_text())["counts"]["clips_by_category"]
  assert sum(counts.values()) == 6  # of one tag each
  alone = sum(count == 1 for count in counts.values())
  assert {done(trained, f"{name}_plus_cross")["clips_alone_in_tag"] for name in ("s", "st", "sa")} == {alone}
  heard, boxes = (np.load(trained / "tables" / name / "values.npy") for name in TABLES.values())
  assert heard.shape == (frames,) and {*heard} <= {0, 1} and boxes.shape == (frames, 4)
  assert done(trained, "tag_heard")["tag_heard"] == heard.sum()
  assert done(trained, "scam_coarse")["whole_frames"] == np.sum(np.all(boxes == [0, 0, 1, 1], axis=1))
  store = np.load(trained / "maps" / "scam_plus" / "weights.npy")
  assert done(trained, "scam_plus")["frames_without_target"] == np.sum(store == 0) < frames


def test_nothing_half_done_is_left(trained):
  assert not [path for path in trained.rglob("*") if path.name.endswith((".partial", ".staging"))]


def test_report_scores_every_method_on_the_same_frames(trained):
  scores = json.loads((trained / "report" / "scores.json").read_text())
  assert set(scores["synthetic"]) == METHODS | ABLATED | {row.method for row in ROWS} and len(ROWS) == 25
  assert all(set(row) == METRICS for row in scores["synthetic"].values())
  same = {"cam_s_coarse": 1, "scam_coarse": 5, "scam_average": 10, "scam": 11, "scam_plus": 25}
  for method, number in same.items():
    assert scores["synthetic"][method] == scores["synthetic"][f"row_{number:02}"], method
  about = json.loads((trained / "report" / "evaluation.json").read_text())
  assert "synthetic" in json.dumps(about["notes"]) and "toggled at inference" in json.dumps(about["notes"])
  page = (trained / "report" / "index.html").read_text()
  assert "synthetic" in page and 'src="http' not in page
  assert done(trained, "report")["senses"] == about["senses"]["says"] and len(about["senses"]["says"]) == 4
  for name, methods in about["senses"]["differences"].items():
    assert set(methods) == ABLATED and name.startswith("synthetic")
  assert all(line.partition(":")[0] in page for line in about["senses"]["says"]) and "Final, other sound" in page


@pytest.mark.slow
def test_report_says_who_names_the_tag(trained):
  """The shares are those that the networks give when each is run on the held-out clips by itself."""
  found = json.loads((trained / "report" / "evaluation.json").read_text())["accuracy"]["sets"]["synthetic"]
  assert list(found["right"]) == ["tagger_0", *networks.SOURCES] and found["clips"] == 2 and found["frames"] == 16
  code = """
import json, sys
import numpy as np
from pathlib import Path
from stajax import config, networks
from stajax.data.records import Records
from stajax.inference.clip import Clip, clip_samples
from stajax.train.run import open_run
folder = Path(sys.argv[1])
run = open_run(config.loads((folder / "config.json").read_text(), "config.json"), folder)
records = Records.open(folder / "data" / "heldout")
right = dict.fromkeys(("tagger_0", "s_coarse", "st_coarse", "sa_coarse", "on"), 0)
for i in range(len(records.names)):
  clip = Clip(clip_samples(records, i, records.side))
  heard = run.trained.dense(networks.SWITCH).run(clip).confidences[:, 0] > 0.5
  right["on"] += int(heard.sum())
  clip = clip.with_switch(heard)
  for name in right:
    if name != "on":
      is_tagger = "tagger" in name
      confidences = run.trained.tagger(name)(clip) if is_tagger else run.trained.dense(name).run(clip).confidences
      right[name] += sum(int(records.tags[i][c]) for c in confidences.argmax(axis=1))
print("counts", json.dumps(right))
"""
  counts = json.loads(finish(run("-c", code, str(trained))).partition("counts ")[2])
  shares = {"on": found["switch_on"], **found["right"]}
  assert {name: shares[name] for name in counts} == pytest.approx({name: n / 16 for name, n in counts.items()})
  page = (trained / "report" / "index.html").read_text()
  assert "Who names the tag" in page and "at most 1/k" in page


def has_begun(workdir: Path, stage: str) -> bool:
  """Returns whether a stage has logged a training step, or has finished a clip."""
  if stage in (*NETWORKS, networks.ALL_STUDENTS):
    return (workdir / "stages" / stage / "log.jsonl").exists()
  path = workdir / "maps" / stage if stage == "scam_plus" else workdir / "tables" / TABLES[stage]
  return path.exists() or any(path.with_name(f".{path.name}.staging").glob("*.npz"))


def train_with_kills(workdir: Path, stages: Sequence[str], seed: int) -> int:
  """Trains, with a SIGKILL at a random moment after each of the stages has begun; returns the number of kills."""
  rng, kills = random.Random(seed), 0
  for stage in stages:
    process = run(*train_in(workdir), start_new_session=True)
    deadline = time.monotonic() + 240
    while not has_begun(workdir, stage) and process.poll() is None and time.monotonic() < deadline:
      time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.7))
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)
      kills += 1
    process.communicate()
  finish(run(*train_in(workdir)))
  return kills


def test_killed_training_ends_with_the_same_bits(place, trained):
  """Some networks, tables and maps of a finished run are removed and made again by runs that are killed."""
  killed = place / "killed"
  shutil.copytree(trained, killed)
  again = ("tag_heard", "scam_coarse", "st_plus_cross", "scam_plus")
  for stage in (*again, "model"):
    shutil.rmtree(killed / "stages" / stage)
  for folder in ("tables", "maps", "model"):
    shutil.rmtree(killed / folder)
  assert train_with_kills(killed, ("tag_heard", "st_plus_cross"), seed=0) >= 1
  check_same(killed, trained)


def check_same(killed: Path, trained: Path) -> None:
  assert {name: done(killed, name)["sha256"] for name in NETWORKS} == {
    name: done(trained, name)["sha256"] for name in NETWORKS
  }
  for folder in ("tables", "maps", "model"):
    found, expected = contents(killed / folder), contents(trained / folder)
    assert found.keys() == expected.keys()
    assert not [path for path in found if found[path] != expected[path]]
  for name in NETWORKS:
    log = (killed / "stages" / name / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2]
  test_nothing_half_done_is_left(killed)


@pytest.fixture(scope="module")
def shared(place, trained) -> Path:
  """A work folder of the same networks up to the pseudo-fixations, with students that share trained backbones.

  No clips are held out, as with real clips, so that its report scores nothing.
  """
  settings = CONFIG.replace("Optimizer, Synthetic", "Optimizer, Students, Synthetic")
  settings = settings.replace(
    'sta=train("st_coarse", "sa_coarse", **heard)',
    'students=Students(backbone="shared"), sta=train("st_coarse", "sa_coarse")',
  )
  (place / "shared").mkdir()
  (place / "shared" / "tiny.py").write_text(settings)
  workdir = place / "shared" / "whole"
  shutil.copytree(trained, workdir, ignore=shutil.ignore_patterns("heldout_tree"))
  (workdir / "config.json").unlink()
  reseal(workdir / "stages" / "data" / "done.json", workdir)
  for manifest in workdir.glob("stages/*/done.json"):
    edit(manifest, made_from=None)  # as the data are others now
  for folder in ("model", "report", *(f"stages/{name}" for name in (*networks.STUDENTS, "model", "report"))):
    shutil.rmtree(workdir / folder)
  finish(run(*train_in(workdir)))
  return workdir


@pytest.mark.slow
def test_students_with_one_backbone(trained, shared):
  """They are trained as one network, and what follows sees three."""
  assert {path.parent.name for path in shared.glob("stages/*/done.json")} == {*STAGES, networks.ALL_STUDENTS}
  log = (shared / "stages" / networks.ALL_STUDENTS / "log.jsonl").read_text().splitlines()
  assert [json.loads(line)["step"] for line in log] == [1, 2] and done(shared, networks.ALL_STUDENTS)["steps"] == 2
  assert load_predictor(shared, batch=4).trained_on == "synthetic"
  together = store.read(shared / "stages" / networks.ALL_STUDENTS / "weights.safetensors")
  before = store.read(trained / "stages" / "st_coarse" / "weights.safetensors")
  for name in networks.STUDENTS:
    path = shared / "model" / f"{name}.safetensors"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == done(shared, name)["sha256"]
    assert not (shared / "stages" / name / "log.jsonl").exists()
    found = store.read(path)
    assert found.keys() == store.read(trained / "model" / path.name).keys()
    for key, x in found.items():
      collection, part, rest = key.split("/", 2) if key.count("/") > 1 else (*key.split("/"), "")
      own = key if part in COMMON else f"{collection}/{name}/{part}/{rest}".rstrip("/")
      np.testing.assert_array_equal(x, together[own], err_msg=key)
    assert any((found[key] != x).any() for key, x in before.items() if key.split("/")[1] == "visual"), "it learns"


@pytest.mark.slow
def test_a_report_without_held_out_clips_shows_training_clips(shared):
  text = (shared / "report" / "index.html").read_text()
  assert re.findall("<h2[^>]*>(.*?)</h2>", text) == ["Learning curves", "Examples", "Facts"]
  assert "Nothing is scored" in text and "rendered clips" in text
  first = text.partition('<article class="example">')[2].partition("</article>")[0]
  assert re.findall("<figcaption>(.*?)</figcaption>", first) == [
    *("Frame", "SCAM", "SCAM+", "Pseudo-fixation", "Final"),
    *("Sound", "CAM S, coarse", "CAM ST, coarse", "CAM SA, coarse", "SCAM, coarse", "CAM S", "CAM ST", "CAM SA"),
    *("STA", "STA+ short", "STA+ long"),
  ]
  assert "The log has no lines." not in text, "only networks that were trained have curves"
  assert "The three students as one network" in text and json.loads((shared / "report/scores.json").read_text()) == {}


@pytest.mark.slow
def test_killed_students_end_with_the_same_bits(trained, shared):
  """They also end with a report."""
  killed = shared.with_name("killed")
  shutil.copytree(shared, killed)
  shutil.copytree(trained / "data" / "heldout_tree", killed / "data" / "heldout_tree")
  for name in (networks.ALL_STUDENTS, *networks.STUDENTS, "model", "report"):
    shutil.rmtree(killed / "stages" / name)
  shutil.rmtree(killed / "model")
  assert train_with_kills(killed, (networks.ALL_STUDENTS,) * 2, seed=0) >= 1
  found, expected = contents(killed / "model"), contents(shared / "model")
  assert found.keys() == expected.keys() and not [path for path in found if found[path] != expected[path]]
  test_nothing_half_done_is_left(killed)
  assert set(json.loads((killed / "report" / "scores.json").read_text())["synthetic"]) >= METHODS
  assert "The three students as one network" in (killed / "report" / "index.html").read_text()


def test_finished_run_is_left_alone_and_another_configuration_refused(trained):
  before = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}
  # One process for both, as each would load TensorFlow.
  code = "import sys; from stajax.train.__main__ import main; print([main(sys.argv[1:-2]), main(sys.argv[1:])])"
  output = finish(run("-c", code, *train_in(trained)[2:], "--sta.steps", "7"))
  assert "everything was done already" in output and "[0, 2]" in output
  assert "sta.steps: 2 → 7" in output and "--workdir" in output and "Traceback" not in output
  assert {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()} == before


def write_video(path: Path, num_frames: int, sound: bool) -> None:
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=Fraction(25))
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    voice = container.add_stream("aac", rate=16000) if sound else None
    rng = np.random.default_rng(0)
    for _ in range(num_frames):
      frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8), format="rgb24")
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
    if voice is not None:
      samples = rng.normal(0, 3000, (1, 640 * num_frames)).astype(np.int16)
      frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
      frame.sample_rate = 16000
      container.mux(voice.encode(frame))
      container.mux(voice.encode())


@pytest.fixture(scope="module")
def used(place, trained) -> str:
  """What the commands print that take the model. They run in one process, because each process would compile."""
  write_video(place / "clip.mp4", 30, sound=True)
  write_video(place / "one.mp4", 1, sound=False)
  (place / "broken.mp4").write_bytes(b"no video")
  videos = [str(place / name) for name in ("clip.mp4", "one.mp4", "broken.mp4")]
  predict = ["--model", str(trained), *videos, "--out"]
  tree = f"stavis:{trained / 'data' / 'heldout_tree'}"
  evaluate = ["--model", str(trained), "--data", tree, "--out", str(place / "scores"), "--stride", "4"]
  code = f"""
from stajax.evaluate import __main__ as evaluate
from stajax.predict import __main__ as predict
codes = [predict.main({predict} + [{str(place / "out")!r}])]
codes.append(predict.main({predict} + [{str(place / "fast")!r}, "--fast"]))
codes.append(evaluate.main({evaluate} + ["--processes", "1"]))
print("codes", codes)
"""
  return finish(run("-c", code))


def maps_of(folder: Path, stem: str) -> np.ndarray:
  with np.load(folder / f"{stem}.maps-000.npz") as part:
    return part["maps"]


def test_predict_with_the_trained_model(place, used):
  assert "codes [1, 1, 0]" in used  # a video of each could not be read
  assert "broken.mp4" in used and "Traceback" not in used
  for out in (place / "out", place / "fast"):
    for stem, frames, count in (("clip", 30, 10), ("one", 1, 1)):
      entries = json.loads((out / f"{stem}.json").read_text())
      assert len(entries["frames"]) == frames and entries["trained_on"] == "synthetic"
      maps = maps_of(out, stem)
      assert maps.shape == (count, 32, 32) and maps.dtype == np.uint8
      assert (maps.max(axis=(1, 2)) == 255).all()
      with av.open(str(out / f"{stem}.overlay.mp4")) as overlay:
        assert sum(1 for _ in overlay.decode(video=0)) == frames
        assert len(overlay.streams.audio) == (stem == "clip")
  assert (maps_of(place / "out", "clip") != maps_of(place / "fast", "clip")).any()


def test_evaluate_gives_the_students_the_scores_of_the_report(place, trained, used):
  assert "synthetic" in used
  mine = json.loads((place / "scores" / "scores.json").read_text())["synthetic"]
  reported = json.loads((trained / "report" / "scores.json").read_text())["synthetic"]
  assert set(mine) == {"centre", "uniform", "spectral_residual", *networks.STUDENTS, "final", "final_no_switch"}
  for method in (*networks.STUDENTS, "final"):
    # Not equal to the last digit: the tree's sound has 16 bits, the records' spectrogram is float16. s-AUC is a step
    # function of a map, and these are nearly constant.
    for metric in METRICS - {"s_auc"}:
      assert mine[method][metric] == pytest.approx(reported[method][metric], abs=0.02), (method, metric)
