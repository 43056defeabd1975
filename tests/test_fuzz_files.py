"""Files of every kind, damaged at random: each is read, or refused in one line, quickly and in little memory."""

import io
import json
import random
import resource
import time

import numpy as np
import pytest
import safetensors.numpy
import scipy.io
import scipy.sparse

from helpers.torch_files import write_legacy, write_state, write_zip
from stajax import cli, eyetracking, model, screen
from stajax import config as configuration
from stajax.config import Config, Training
from stajax.files import manifest
from stajax.prepare.constant_rate import ShownFrames
from stajax.prepare.fixations import FixationTable
from stajax.prepare.gaze_units import GazeUnits
from stajax.prepare.video_tags import read_table as read_video_tags
from stajax.train.tag_table import read_table as read_tag_table
from stajax.weights import store
from stajax.weights.array_files import open_arrays

NASTY = [
  *(b"1e300", b"-1", b"NaN", b"Infinity", b"1" * 400, b"0", b"2147483648", b"99999999999999999999", b"null", b"true"),
  *(b"[" * 3000, b'{"a":' * 3000, b"\x00", b"\xff\xfe", b"\x1b[2J", b"../../etc/passwd", b"/etc/passwd", b"=cmd()"),
  *(b'"', b",", b";", b"\t", b"\r", b"\n", b"'", b"[]", b"{}", b'""', b"%s%n", "É".encode()),
]
CONFIG = Config(name="a", sta=Training(size=32))
ABOUT = {"categories": ["ant", "bee"], "rate": 8.0, "side": 64, "trained_on": "ave", "sha256": {"sta": "0" * 64}}


def damage(content: bytes, rng: random.Random) -> bytes:
  """Changes a file in one to three places."""
  changed = bytearray(content)
  for _ in range(rng.randint(1, 3)):
    at = rng.randrange(len(changed) + 1)
    end = min(len(changed), at + rng.choice((0, 1, 2, 8, 60)))
    match rng.randrange(6):
      case 0:
        changed[at:end] = bytes(rng.randrange(256) for _ in range(end - at))
      case 1:
        del changed[at:]
      case 2:
        changed[at:end] = changed[at:end] * rng.choice((2, 100))
      case 3:
        for place in range(at, min(at + 1, len(changed))):
          changed[place] ^= 1 << rng.randrange(8)
      case _:
        changed[at:end] = rng.choice(NASTY)
  return bytes(changed)


def damage_json(value, rng: random.Random):
  """Replaces a value somewhere in JSON by another one; what remains is JSON."""
  if isinstance(value, dict) and value and rng.random() < 0.8:
    key = rng.choice(list(value))
    if rng.random() < 0.2:
      return {name: x for name, x in value.items() if name != key}
    return {**value, key: damage_json(value[key], rng)}
  if isinstance(value, list) and value and rng.random() < 0.6:
    at = rng.randrange(len(value))
    return [*value[:at], damage_json(value[at], rng), *value[at + 1 :]]
  return rng.choice(
    [None, -1, 0, 1e300, 2**31, 10**30, "", "../x", "\x1b[2J", [], {}, [[[]]], {"a": 1}, True, "9" * 500]
  )


def mat(**options) -> bytes:
  file = io.BytesIO()
  scipy.io.savemat(file, options.pop("content"), **options)
  return file.getvalue()


def fixation_table(path):
  table = FixationTable(path, ShownFrames(3.0, np.arange(9), 48, 64), 0.05, 0, GazeUnits(), [])
  return [table.frame(number) for number in range(9)]


def all_arrays(path):
  with open_arrays(path) as arrays:
    return {name: arrays.read(name) for name in arrays.shapes}


def torch_file(write):
  def make(path):
    write_state(write, path, {"a": np.ones((2, 3), np.float32), "b": np.arange(4)})
    return path.read_bytes()

  return make


def npz(path):
  np.savez_compressed(path, a=np.ones((2, 3), np.float32), b=np.arange(4))
  return path.with_name(path.name + ".npz").read_bytes()


FIXATIONS = b"frame,x,y,viewer\n" + b"".join(b"%d,%d,%d,v%d\n" % (i, 3 * i, 2 * i, i % 2) for i in range(9))
KINDS = {
  "config": (lambda _: configuration.dumps(CONFIG).encode(), lambda path: configuration.loads(
    path.read_text("utf-8", "replace"), str(path))),
  "tags": (lambda _: b"tag,class\nant,Insect\nbee,Insect\nant,\n", lambda path: read_tag_table(
    path, ["ant", "bee"], ["Insect"])),
  "video tags": (lambda _: b"database,video,tag\nDB,one,ant\nDB,two,bee|ant\n", read_video_tags),
  "fixations": (lambda _: FIXATIONS, fixation_table),
  "fold list": (lambda _: b"one 10 25.0\ntwo words 7 29.97\n", eyetracking.read_fold_list),
  "matrix": (lambda _: mat(content={"eyeMap": np.eye(9)}), eyetracking.read_fixations),
  "packed matrix": (lambda _: mat(content={"eyeMap": np.eye(9)}, do_compression=True), eyetracking.read_fixations),
  "sparse matrix": (lambda _: mat(content={"eyeMap": scipy.sparse.csc_matrix(np.eye(9))}), eyetracking.read_fixations),
  "npz": (npz, all_arrays),
  "safetensors": (lambda _: safetensors.numpy.save({"a": np.ones((2, 3)), "b": np.arange(4)}), store.read),
  "torch zip": (torch_file(write_zip), all_arrays),
  "torch legacy": (torch_file(write_legacy), all_arrays),
}  # fmt: skip
KNOWN = (OSError, ValueError)


def check_one_line(read, path):
  start = time.monotonic()
  try:
    read(path)
  except KNOWN as error:
    line = screen.one_line(error)
    assert line and "\n" not in line and "\x1b" not in line and len(line) < 3000, line
  assert time.monotonic() - start < 30


@pytest.fixture
def bounded_memory():
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  yield
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19  # KiB


COUNTS = pytest.mark.parametrize("count", [16, pytest.param(160, marks=pytest.mark.slow)])


@COUNTS
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused(tmp_path, bounded_memory, kind, count):
  make, read = KINDS[kind]
  content, path = make(tmp_path / "whole"), tmp_path / f"file{'.mat' if 'matrix' in kind else ''}"
  path.write_bytes(content)
  read(path)
  for seed in range(count):
    path.write_bytes(damage(content, random.Random(f"{kind} {seed}")))
    check_one_line(read, path)


@pytest.mark.parametrize("count", [50, pytest.param(500, marks=pytest.mark.slow)])
def test_models_of_anybody_are_read_or_refused(tmp_path, bounded_memory, count):
  """Their manifests are right, so it is what they say that counts."""
  about = {**ABOUT, "format": model.FORMAT}
  settings = json.loads(configuration.dumps(CONFIG))
  for seed in range(count):
    rng = random.Random(seed)
    own = json.dumps(damage_json(settings, rng) if seed % 2 else settings)
    (tmp_path / "config.json").write_text(own)
    found = about if seed % 2 else damage_json(about, rng)
    if not isinstance(found, dict):
      found = {"format": found}
    manifest.write_manifest(tmp_path / "model.json", found, manifest.digests(tmp_path, [tmp_path / "config.json"]))
    check_one_line(lambda folder: model.load(folder, ()), tmp_path)


@pytest.mark.parametrize("count", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_overrides_are_taken_or_refused(capsys, count):
  names = ["--seed", "--data.rate", "--sta.size", "--network.width", "--network.depths", "--maps.blur", "--students.x"]
  for seed in range(count):
    rng = random.Random(seed)
    value = rng.choice(NASTY).replace(b"\x00", b"").decode("utf-8", "surrogateescape")
    try:
      cli.override(CONFIG, [rng.choice(names), value])
    except configuration.ConfigError as error:
      cli.fail("x", error)
    except SystemExit as stop:
      assert stop.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") <= 1 and "\x1b" not in line


@pytest.fixture
def shards():
  """The module; it, and TensorFlow, which some damage makes it load, take much memory and time to load."""
  pytest.importorskip("tensorflow")
  from stajax.data import shards

  return shards


@COUNTS
def test_metadata_of_anybody_are_read_or_refused(tmp_path, shards, bounded_memory, count):
  tfds = shards.tfds
  writer = shards.ShardWriter(tmp_path / "set", "things", {"key": tfds.features.Text(), "number": np.int64})
  writer.write({"key": "a", "number": 1})
  writer.close("a test")
  for seed in range(count):
    rng = random.Random(seed)
    path = tmp_path / "set" / shards.VERSION / rng.choice(["dataset_info.json", "features.json"])
    content = path.read_bytes()
    is_json = rng.random() < 0.7
    path.write_bytes(json.dumps(damage_json(json.loads(content), rng)).encode() if is_json else damage(content, rng))
    check_one_line(lambda folder: shards.ShardReader(folder).read([0]), tmp_path / "set")
    path.write_bytes(content)
