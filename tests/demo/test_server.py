"""Tests of the page's server over HTTP, with a model whose maps are known: the blurred brightness of the frames."""

import http.client
import io
import json
import threading
import time
import types
import urllib.parse
import wave
import zipfile

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import entropy

from helpers.media_files import clicks, ramp, write_video
from stajax.demo import store as stores
from stajax.demo.limits import Refused, UploadLimits
from stajax.media.video import native_frames, probe
from stajax.predict.api import SaliencyModel
from tests.predict.test_outputs import predict_video, read_parts, spot

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
from stajax.demo.server import listen, make_application, make_server

KEY = "key"
OWN = {"final": "Final"}


class Views:
  """A predictor of known maps; without its sound, a video is seen from left to right."""

  rate, side, confidence, trained_on, notes, students = 8.0, 24, None, "csv", (), ("sta",)
  made_with = types.MappingProxyType({"trained_on": "brightness"})

  def __init__(self):
    self.senses, self.goes = (), threading.Event()
    self.goes.set()

  def with_senses(self, senses):
    self.senses = senses
    return self

  def maps(self, samples, reach, fragments):
    return (views["final"] for views in self.views(samples, reach, fragments))

  def views(self, samples, reach, _):
    for frame, _ in samples:
      assert self.goes.wait(20)
      saliency = gaussian_filter(frame.mean(-1) / 255, 1).astype(np.float32)
      yield {"final": saliency, **{f"final{senses.suffix}": saliency[:, ::-1].copy() for senses in self.senses}}


class Server:
  """A server in a thread, and a client of it."""

  def __init__(self, folder, **limits):
    self.predictor, self.folder = Views(), folder
    model = SaliencyModel(self.predictor, "m")
    self.store = stores.Store(model, folder, UploadLimits(**limits))
    self.server, self.socket = make_server(make_application(self.store, model, KEY)), listen(0)
    self.port = self.socket.getsockname()[1]
    self.thread = threading.Thread(target=self.server.run, args=([self.socket],))
    self.thread.start()

  def close(self):
    self.predictor.goes.set()
    self.server.should_exit = True
    self.thread.join(20)
    self.socket.close()

  def ask(self, path, method="GET", body=None, headers=None, key=f"/{KEY}/"):
    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
    connection.request(method, key + path, body, {"Host": f"127.0.0.1:{self.port}", **(headers or {})})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content, answer.headers

  def upload(self, content, name="a.mp4"):
    status, answer, _ = self.ask(f"videos?name={urllib.parse.quote(name)}", "POST", content)
    return (status, json.loads(answer)["videos"][-1]["id"]) if status == 201 else (status, json.loads(answer)["error"])

  def videos(self):
    return {video["id"]: video for video in json.loads(self.ask("state")[1])["videos"]}

  def wait(self, read, *states):
    for _ in range(400):
      found = read()
      if found["state"] in (states or ("done", "failed")):
        return found
      time.sleep(0.02)
    raise AssertionError(found)

  def download(self, video, **fields):
    status, content, _ = self.ask(f"videos/{video}/files", "POST", json.dumps(fields))
    assert status == 202, content
    identity = json.loads(content)["id"]
    found = self.wait(lambda: next(f for f in self.videos()[video]["files"] if f["id"] == identity))
    assert found["state"] == "done", found["message"]
    return found["name"], self.ask(f"videos/{video}/files/{identity}")[1]


@pytest.fixture
def serve(tmp_path):
  made = []

  def start(**limits):
    (tmp_path / "held").mkdir(exist_ok=True)
    made.append(Server(tmp_path / "held", **limits))
    return made[-1]

  yield start
  for server in made:
    server.close()


@pytest.fixture
def video(tmp_path):
  return write_video(tmp_path / "a.mp4", spot(14), sound=clicks(1.4, [0.3, 0.9]))


def test_a_video_is_shown_with_and_without_its_sound(serve, video):
  server = serve()
  status, identity = server.upload(video.read_bytes(), "my dog.mp4")
  assert status == 201
  held = server.wait(lambda: server.videos()[identity])
  assert (held["state"], held["title"], held["bytes"]) == ("done", "my dog.mp4", video.stat().st_size)
  found = json.loads(server.ask(f"videos/{identity}")[1])
  assert found["size"] == [64, 48] and found["has_sound"] and found["maps_a_second"] == 8
  np.testing.assert_allclose(found["times"], np.arange(12) / 8)

  maps = SaliencyModel(Views(), "m").predict(video).maps
  uneven = [1 - entropy(saliency.ravel()) / np.log(saliency.size) for saliency in maps.astype(np.float64)]
  np.testing.assert_allclose(found["concentration"]["final"], uneven, atol=1e-4)
  shares = maps / maps.sum((1, 2), keepdims=True)
  np.testing.assert_allclose(found["moved"], np.abs(shares - shares[..., ::-1]).sum((1, 2)) / 2, atol=1e-4)
  assert found["moved"][0] > 0.2 > found["moved"][6]

  small, silent = (
    np.frombuffer(server.ask(f"videos/{identity}/maps/{view}")[1], np.uint8) for view in found["concentration"]
  )
  small, silent = small.reshape(12, 64, 64), silent.reshape(12, 64, 64)
  assert (small.max((1, 2)) == 255).all()
  np.testing.assert_array_equal(silent, small[:, :, ::-1])
  near = maps[:, np.arange(64) * 24 // 64][:, :, np.arange(64) * 24 // 64]
  assert np.corrcoef(small.ravel(), near.ravel())[0, 1] > 0.97

  assert server.ask(f"videos/{identity}/original")[1] == video.read_bytes()
  status, part, headers = server.ask(f"videos/{identity}/original", headers={"Range": "bytes=10-19"})
  assert (status, part, headers["content-type"]) == (206, video.read_bytes()[10:20], "video/mp4")
  assert server.ask(f"videos/{identity}/maps/..%2f..%2fa")[0] == 404


def test_downloads_are_what_predict_writes(serve, video, tmp_path):
  server = serve()
  _, identity = server.upload(video.read_bytes(), "a.mp4")
  assert server.wait(lambda: server.videos()[identity])["state"] == "done"
  (tmp_path / "out").mkdir()
  predict_video(Views(), video, tmp_path / "out", model="m")
  name, content = server.download(identity, kind="maps")
  assert name == "a.maps-000.npz"
  wanted, made = read_parts(tmp_path / "out", "a"), np.load(io.BytesIO(content))
  for field in ("maps", "times", "rate", "size", "model", "video"):
    np.testing.assert_array_equal(made[field], wanted[field])

  name, content = server.download(identity, kind="numbers", view="final_no_sound")
  frames, expected = json.loads(content)["frames"], json.loads((tmp_path / "out/a.json").read_text())["frames"]
  assert name == "a.json" and len(frames) == len(expected) == 14
  for frame, other in zip(frames, expected, strict=True):
    assert frame["time"] == other["time"] and frame["entropy"] == pytest.approx(other["entropy"], abs=0.01)
    assert frame["centroid"] == pytest.approx([63 - other["centroid"][0], other["centroid"][1]], abs=0.5)

  name, content = server.download(identity, kind="all", boxes=2, aspect="1:1")
  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    names = set(archive.namelist())
    kinds = {"a.json", "a.csv", "a.overlay.mp4", "a.maps-000.npz", "a.roi.jsonl", "a.crop.jsonl", "a.encoded.mp4"}
    assert name == "a.stajax.zip" and names >= kinds | {"a.blocks.txt", "a.blocks.bin", "a.blocks-000.npz"}
    assert sum(entry.startswith("a.maps/") and entry.endswith(".png") for entry in names) == 12
    window = json.loads(archive.read("a.crop.jsonl").split(b"\n")[0])
    assert (window["w"], window["h"]) == (48, 48)
  for kind, ending in {"overlay": "overlay.mp4", "boxes": "roi.jsonl", "cropped": "encoded.mp4", "blocks": "blocks.zip",
                       "pictures": "pictures.zip", "table": "csv", "crop": "crop.jsonl"}.items():  # fmt: skip
    name, content = server.download(identity, kind=kind)
    assert name == f"a.{ending}" and content


def test_what_is_set_is_what_is_made(serve, video, tmp_path):
  server = serve()
  _, identity = server.upload(video.read_bytes())
  server.wait(lambda: server.videos()[identity])
  _, content = server.download(identity, kind="maps", smooth=0.25)
  maps = SaliencyModel(Views(), "m").predict(video, smooth=0.25).maps
  assert np.abs(np.load(io.BytesIO(content))["maps"] - maps * 255).max() < 2
  for opacity in (0, 1):
    (tmp_path / "o.mp4").write_bytes(server.download(identity, kind="overlay", opacity=opacity)[1])
    shown = np.stack([frame for _, frame in native_frames(tmp_path / "o.mp4")]).astype(int)
    original = np.stack([frame for _, frame in native_frames(video)]).astype(int)
    assert (np.abs(shown - original).max() > 60) == bool(opacity)
  (tmp_path / "copy.mp4").write_bytes(server.download(identity, kind="copy")[1])
  info = probe(tmp_path / "copy.mp4")
  assert (info.width, info.height, info.has_sound, round(info.duration, 1)) == (64, 48, True, 1.4)
  assert len(list((server.folder / identity).glob("*/"))) == 3  # the latest of each kind
  wrong = [
    '"kind": "maps", "view": "../a"',
    '"kind": "x"',
    '"opacity": 2, "kind": "maps"',
    '"kind": "maps", "boxes": 0',
  ]
  wrong += ['"kind": "maps", "smooth": "1"', '"kind": "maps", "path": "x"', '"kind": "crop", "aspect": "0:1"', "", "x"]
  for order in (*(f"{{{fields}}}" for fields in wrong), "[]", "[" * 9000, "x" * 20_000):
    status, answer, _ = server.ask(f"videos/{identity}/files", "POST", order)
    assert status in (400, 413) and json.loads(answer)["error"], order


@pytest.mark.parametrize(
  ("content", "said"),
  [
    (b"hello " * 100, "This is not a video that can be read. It may be damaged, or a file of another kind."),
    (b"", "This file is empty."),
    ("sound", "This file has no moving picture."),
    ("cut", "This is not a video that can be read."),
    ("long", "This video lasts 3 seconds. This page takes at most 2 seconds; `stajax predict` takes more."),
  ],
  ids=["text", "empty", "sound", "cut", "long"],
)
def test_what_cannot_be_read_is_refused_in_words(serve, tmp_path, content, said):
  server = serve(max_seconds=2)
  if isinstance(content, str):
    path = write_video(tmp_path / "v.mp4", ramp(30), sound=clicks(3, [1]))
    if content == "sound":
      with wave.open(str(tmp_path / "s.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16_000))
      path = tmp_path / "s.wav"
    content = path.read_bytes()[: 300 if content == "cut" else None]
  _, identity = server.upload(content, "../x/holiday.mp4")
  held = server.wait(lambda: server.videos()[identity])
  assert held["state"] == "failed" and held["message"].startswith(said) and str(tmp_path) not in held["message"]
  assert held["title"] == "holiday.mp4" and not list(server.folder.iterdir())
  assert server.ask(f"videos/{identity}")[0] == 409 and server.ask(f"videos/{identity}/original")[0] == 404


def test_what_is_too_large_is_refused_before_and_while_it_comes(serve):
  server = serve(max_bytes=100_000)
  stated, said = server.upload(b"x" * 150_000)
  assert stated == 413 and said.startswith("This file has 0.15 MB. This page takes at most 0.1 MB")
  vast = UploadLimits(500_000_000)
  with pytest.raises(Refused, match=r"has 99,999,999\.5 MB\. This page takes at most 500 MB"):
    vast.check_bytes(99_999_999_500_000)
  parts = (b"x" * 10_000 for _ in range(12))  # without a length in the header
  status, answer, _ = server.ask("videos?name=a", "POST", parts)
  assert status == 413 and b"at most" in answer
  assert not list(server.folder.iterdir()) and not server.videos()


def test_videos_wait_and_can_be_cancelled(serve, video):
  server = serve(keep=3)
  server.predictor.goes.clear()
  first, second, third = (server.upload(video.read_bytes())[1] for _ in range(3))
  server.wait(lambda: server.videos()[first], "running")
  assert [server.videos()[x]["state"] for x in (second, third)] == ["waiting", "waiting"]
  status, said = server.upload(video.read_bytes())
  assert status == 413 and said.startswith("3 videos are waiting.")
  for identity in (first, second):
    assert server.ask(f"videos/{identity}", "DELETE")[0] == 204
  assert server.ask(f"videos/{second}", "DELETE")[0] == 404
  server.predictor.goes.set()
  assert server.wait(lambda: server.videos()[third])["state"] == "done"
  assert list(server.videos()) == [third] and [path.name for path in server.folder.iterdir()] == [third]
  fourth, fifth, sixth = (server.upload(video.read_bytes())[1] for _ in range(3))  # the oldest one has to go
  assert list(server.videos()) == [fourth, fifth, sixth]
  for identity in (fourth, fifth, sixth):
    assert server.wait(lambda x=identity: server.videos()[x])["state"] == "done"
  server.close()
  assert not list(server.folder.iterdir())


def test_only_the_page_itself_is_answered(serve, video):
  server = serve()
  own = f"http://127.0.0.1:{server.port}"
  status, page, headers = server.ask("")
  assert status == 200 and b"<!doctype html>" in page and "default-src 'none'" in headers["content-security-policy"]
  assert b"http://" not in page and b"https://" not in page and headers["x-content-type-options"] == "nosniff"
  for part in set(filter(None, page.decode().split('"'))) & {"main.js", "demo.css", "icon.svg"}:
    assert server.ask(part)[0] == 200
  assert server.ask("", key=f"/{KEY}")[2]["location"] == f"/{KEY}/"
  for key in ("/", "/state", "/other/state", f"/{KEY}x/state", "/%C3%A9"):
    assert server.ask("", key=key)[0] == 403
  refused = [
    {"Host": "evil.example"}, {"Host": f"evil.example:{server.port}"}, {"Host": "127.0.0.1.evil.example"}, {"Host": ""},
    {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": f"http://localhost:{server.port}"},
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
  ]  # fmt: skip
  for headers in refused:
    for path, method in (("state", "GET"), ("videos?name=a", "POST")):
      assert server.ask(path, method, video.read_bytes() if method == "POST" else None, headers)[0] == 403, headers
  assert not server.videos()
  for headers in (
    {"Origin": own},
    {"Host": f"localhost:{server.port}"},
    {"Host": "[::1]:9"},
    {"Sec-Fetch-Site": "none"},
  ):
    assert server.ask("state", headers=headers)[0] == 200, headers
  for path in ("../pyproject.toml", "..%2f__main__.py", "nothing", "videos/x", "videos/x/original", "videos/x/files/y"):
    assert server.ask(path)[0] == 404, path


def test_folders_of_killed_processes_are_removed(tmp_path, monkeypatch):
  monkeypatch.setattr(stores.tempfile, "gettempdir", lambda: str(tmp_path))
  monkeypatch.setattr(stores.tempfile, "tempdir", str(tmp_path))
  left = tmp_path / f"{stores.PREFIX}left"
  (left / "video").mkdir(parents=True)
  (left / "lock").write_text("process 1 on nowhere")
  (tmp_path / "other").mkdir()
  with stores.temporary_folder() as folder:
    assert not left.exists() and folder.stat().st_mode & 0o77 == 0
    (folder / "a").write_text("x")
    with stores.temporary_folder() as second:
      assert (folder / "a").exists() and second != folder
  assert [path.name for path in tmp_path.iterdir()] == ["other"]
