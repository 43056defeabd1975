"""Models from a local server: as a folder, as a zip file, and as a repository of Hugging Face."""

import functools
import hashlib
import http.server
import json
import re
import shutil
import threading
import zipfile

import numpy as np
import pytest

import stajax
from stajax import model
from stajax.files.manifest import digests, write_manifest
from stajax.predict.__main__ import main as predict
from stajax.weights import store
from stajax.weights.fetch import FetchError
from stajax.weights.locate import locate
from stajax.weights.remote import fetch_model


class Handler(http.server.SimpleHTTPRequestHandler):
  def log_message(self, *_):
    pass


@pytest.fixture
def site(tmp_path, monkeypatch):
  """A folder that a server shows, and its address; the cache is empty."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  folder = tmp_path / "site"
  folder.mkdir()
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
    thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


def write_small(folder, **files):
  """Writes what looks like a model from outside."""
  folder.mkdir()
  store.save(folder / "sta.safetensors", {"params": {"x": np.arange(3.0)}})
  (folder / "config.json").write_text("{}")
  for name, text in files.items():
    (folder / name).write_text(text)
  write_manifest(folder / "model.json", {"format": 3}, digests(folder, sorted(folder.iterdir())))
  return folder


def pin(path):
  return f"#sha256={hashlib.sha256(path.read_bytes()).hexdigest()}"


def zipped(folder, path, root="", **more):
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
    for member in folder.iterdir():
      file.write(member, f"{root}{member.name}")
    for name, text in more.items():
      file.writestr(name, text)
  return path


def content(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_is_downloaded_once(site):
  folder, address = site
  small = write_small(folder / "small", LICENCE="free")
  found = fetch_model(f"{address}/small/{pin(small / 'model.json')}")
  assert content(found) == content(small)
  expected = content(small)
  (small / "sta.safetensors").unlink()
  again = fetch_model(f"{address}/small/{pin(small / 'model.json')}".replace("://", ":/"))
  assert again == found and content(again) == expected


@pytest.mark.parametrize("root", ["", "a/small/"])
def test_a_zip_file_is_unpacked_without_what_the_manifest_does_not_name(site, root):
  folder, address = site
  small = write_small(folder / "small")
  path = zipped(small, folder / "small.zip", root, **{f"{root}README.md": "a card", "../../evil.txt": "evil"})
  found = fetch_model(f"{address}/small.zip{pin(path)}")
  assert content(found) == {**content(small), "README.md": b"a card"}
  assert not list(folder.parent.rglob("evil.txt"))


def test_damage_is_named_and_leaves_nothing(site, tmp_path):
  folder, address = site
  small = write_small(folder / "small")
  right = pin(small / "model.json")
  for url, message in [
    (f"{address}/small#sha256={'0' * 64}", "has SHA-256 .*, expected 0000"),
    (f"{address}/nothing{right}", "404"),
  ]:
    with pytest.raises(FetchError, match=message):
      fetch_model(url)
  (small / "sta.safetensors").write_bytes(b"another")
  with pytest.raises(FetchError, match=r"sta.safetensors: has SHA-256 .*, expected"):
    fetch_model(f"{address}/small{right}")
  path = zipped(small, folder / "small.zip")
  with pytest.raises(FetchError, match=r"sta.safetensors: damaged or changed"):
    fetch_model(f"{address}/small.zip{pin(path)}")
  path.write_bytes(path.read_bytes()[:-30])
  with pytest.raises(FetchError, match="a damaged zip file"):
    fetch_model(f"{address}/small.zip{pin(path)}")
  assert not [found for found in (tmp_path / "cache").rglob("*") if found.is_file()]


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "model.json"])
def test_a_manifest_cannot_write_elsewhere(site, name):
  folder, address = site
  small = write_small(folder / "small")
  write_manifest(small / "model.json", {"format": 3}, {name: "0" * 64})
  with pytest.raises(FetchError, match=rf"model\.json(: files: found| has the name) {re.escape(repr(name))}, expected"):
    fetch_model(f"{address}/small{pin(small / 'model.json')}")


@pytest.mark.parametrize(
  "address, message",
  [
    ("http://example.org/model", "anybody on the way may change it"),
    ("ftp://example.org/model", "expected https://"),
    ("https://example.org/model#sha256=12", "of 64 digits"),
    ("hf://owner", "expected hf://owner/name"),
    ("https://[::1/model", "not an address"),
  ],
)
def test_addresses_that_are_not_possible(address, message):
  with pytest.raises(FetchError, match=message) as error:
    locate(address)
  assert str(error.value).startswith(address)


def test_a_password_in_an_address_is_refused_and_not_shown():
  with pytest.raises(FetchError, match=r"^https://…@example\.org: has a name or a password in it") as error:
    locate("https://somebody:secret@example.org/model")
  assert "secret" not in str(error.value) and "somebody" not in str(error.value)


def test_a_published_model_predicts(site, tmp_path, capsys):
  """The model that the package comes with, from a server."""
  folder, address = site
  published = folder / "published"
  shutil.copytree(model.SHIPPED, published)
  where = f"{address}/published{pin(published / 'model.json')}"
  loaded = stajax.load(where)
  assert loaded.name == where and loaded.predictor.made_with == stajax.load().predictor.made_with
  assert predict([str(tmp_path / "no.mp4"), "--out", str(tmp_path / "out"), "--model", where]) == 2
  assert "no.mp4" in capsys.readouterr().err


class Hub(http.server.BaseHTTPRequestHandler):
  """Answers what the library of Hugging Face asks about one repository, `somebody/small`."""

  COMMIT = "0123456789abcdef0123456789abcdef01234567"

  def do_HEAD(self):
    self.answer(with_content=False)

  def do_GET(self):
    self.answer(with_content=True)

  def answer(self, with_content):
    files = {path.name: path.read_bytes() for path in self.server.folder.iterdir()}
    path = self.path.partition("?")[0]
    if path.startswith("/api/models/somebody/small"):
      siblings = [{"rfilename": name} for name in files]
      listed = [{"type": "file", "path": name, "size": len(x), "oid": "0" * 40} for name, x in files.items()]
      body = json.dumps(
        listed if "/tree/" in path else {"id": "somebody/small", "sha": self.COMMIT, "siblings": siblings}
      ).encode()
    elif path.startswith("/somebody/small/resolve/") and path.split("/")[-1] in files:
      body = files[path.split("/")[-1]]
    else:
      self.send_error(404)
      return
    self.send_response(200)
    self.send_header("X-Repo-Commit", self.COMMIT)
    self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
    self.send_header("Content-Length", str(len(body)))
    self.end_headers()
    if with_content:
      self.wfile.write(body)

  def log_message(self, *_):
    pass


def test_a_repository_of_hugging_face(tmp_path, monkeypatch):
  pytest.importorskip("huggingface_hub", reason="needs the extra `hub`")
  from huggingface_hub import constants

  small = write_small(tmp_path / "small")
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
    server.folder = small
    thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(
      constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}", raising=False
    )
    try:
      found = fetch_model("hf://somebody/small")
      assert content(found) == content(small)
      (small / "model.json").unlink()
      with pytest.raises(FetchError, match=r"hf://somebody/other: cannot be downloaded"):
        fetch_model("hf://somebody/other")
    finally:
      server.shutdown()
      thread.join()
