"""Tests that downloads, here from a local server, are whole and checked, or fail with one line and leave nothing."""

import hashlib
import http.server
import re
import threading
from functools import partial
from http import HTTPStatus

import numpy as np
import pytest

from stajax import runtime
from stajax.weights import __main__ as weights
from stajax.weights import fetch as fetching
from stajax.weights.fetch import PUBLICATIONS, FetchError, Publication, fetch

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
  """Serves CONTENT under every name; `script` says what goes wrong with the next requests."""

  def __init__(self):
    super().__init__(("127.0.0.1", 0), Handler)
    self.script, self.requests, self.etags, self.length = [], [], ['"1"'], True

  def published(self, **changes):
    return Publication(**{"address": f"http://127.0.0.1:{self.server_port}/models/vgg16.pth", "limit": 2**22} | changes)


class Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.0"  # one connection for each request

  def do_GET(self):
    wrong = self.server.script.pop(0) if self.server.script else None
    etags = self.server.etags  # of this request and the next ones
    etag = etags.pop(0) if len(etags) > 1 else etags[0]
    self.server.requests.append(self.headers)
    if isinstance(wrong, HTTPStatus):
      self.send_error(wrong)
      return
    begin, asked = 0, self.headers.get("Range")
    if asked and self.headers.get("If-Range") == etag and wrong != "no ranges":
      begin = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
    self.send_response(206 if begin else 200)
    if begin:
      self.send_header("Content-Range", f"bytes {begin}-{len(CONTENT) - 1}/{len(CONTENT)}")
    if etag:
      self.send_header("ETag", etag)
    if self.server.length:
      self.send_header("Content-Length", str(len(CONTENT) - begin))
    self.end_headers()
    self.wfile.write(CONTENT[begin : begin + wrong] if isinstance(wrong, int) else CONTENT[begin:])

  def log_message(self, *_):
    pass


@pytest.fixture
def server():
  with Server() as server:
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    yield server
    server.shutdown()
    thread.join()


def quick(publication, folder, tries=3):
  return fetch(publication, folder, tries, wait=0.01)


def assert_refused(publication, folder, *messages, **how):
  with pytest.raises(FetchError) as error:
    quick(publication, folder, **how)
  text = str(error.value)
  assert text.startswith(publication.address) and "\n" not in text
  assert all(message in text for message in messages), text
  assert not list(folder.iterdir())


@pytest.mark.parametrize("sha256", [SHA256, SHA256[:8], ""], ids=["whole", "first digits", "unknown"])
def test_the_right_file_is_downloaded(server, tmp_path, sha256):
  folder = tmp_path / "new" / "folder"
  path, found = quick(server.published(sha256=sha256), folder)
  assert path == folder / "vgg16.pth" and path.read_bytes() == CONTENT and found == SHA256
  assert [file.name for file in folder.iterdir()] == ["vgg16.pth"] and len(server.requests) == 1


def test_a_file_that_is_there_is_not_downloaded_again(server, tmp_path):
  publication = server.published(sha256=SHA256)
  quick(publication, tmp_path)
  assert quick(publication, tmp_path)[1] == SHA256 and len(server.requests) == 1
  (tmp_path / "vgg16.pth").write_bytes(b"damaged since")
  with pytest.raises(FetchError, match=f"vgg16.pth: has SHA-256 .*, expected {SHA256}"):
    quick(publication, tmp_path)
  assert (tmp_path / "vgg16.pth").read_bytes() == b"damaged since" and len(server.requests) == 1


def test_a_wrong_hash_is_refused(server, tmp_path):
  assert_refused(server.published(sha256="0" * 64), tmp_path, f"has SHA-256 {SHA256}, expected 000000")


def test_the_leftover_of_a_killed_download_is_not_used(server, tmp_path):
  (tmp_path / "vgg16.pth.partial").write_bytes(b"of another version")
  assert quick(server.published(), tmp_path)[1] == SHA256


@pytest.mark.parametrize("cut", [[15], [1, 30]])
def test_a_connection_that_breaks_is_resumed_where_it_broke(server, tmp_path, cut):
  cut = [pieces * fetching._CHUNK for pieces in cut]
  server.script = list(cut)
  assert quick(server.published(sha256=SHA256), tmp_path)[1] == SHA256
  begins = [headers.get("Range") for headers in server.requests]
  assert begins == [None] + [f"bytes={sum(cut[: i + 1])}-" for i in range(len(cut))]


@pytest.mark.parametrize("case", ["no ranges", "another version", "no versions"])
def test_a_download_that_cannot_be_resumed_begins_again(server, tmp_path, case):
  server.script = [1_000_000, "no ranges"] if case == "no ranges" else [1_000_000]
  server.etags = {"no ranges": ['"1"'], "another version": ['"1"', '"2"'], "no versions": [None]}[case]
  assert quick(server.published(sha256=SHA256), tmp_path)[1] == SHA256
  assert len(server.requests) == 2


def test_a_file_that_stays_truncated(server, tmp_path):
  server.script = [fetching._CHUNK, 500, 500]
  assert_refused(server.published(sha256=SHA256), tmp_path, "the connection broke 65536 bytes in (IncompleteRead")
  assert len(server.requests) == 3


def test_a_truncated_file_of_unknown_length_is_found_by_its_hash(server, tmp_path):
  server.length, server.script = False, [1_000_000]
  assert_refused(server.published(sha256=SHA256), tmp_path, "expected " + SHA256)


def test_a_file_that_was_moved(server, tmp_path):
  server.script = [HTTPStatus.NOT_FOUND]
  assert_refused(server.published(), tmp_path, "404 Not Found")
  assert len(server.requests) == 1


def test_a_server_that_is_busy_is_asked_again(server, tmp_path):
  server.script = [HTTPStatus.SERVICE_UNAVAILABLE] * 2
  assert quick(server.published(), tmp_path)[1] == SHA256
  server.script = [HTTPStatus.SERVICE_UNAVAILABLE] * 9
  assert_refused(server.published(), tmp_path / "other", "503")


@pytest.mark.parametrize("length", [True, False])
def test_a_file_that_is_too_large(server, tmp_path, length):
  server.length = length
  assert_refused(server.published(limit=2_999_999), tmp_path, "more than 2999999 bytes")


def test_a_server_that_does_not_answer(tmp_path, capsys):
  with Server() as server:
    publication = server.published()
  assert_refused(publication, tmp_path, "no connection", tries=2)
  assert f"note: {publication.address}: ConnectionRefusedError" in (error := capsys.readouterr().err)
  assert error.count("trying again") == 1 and "trying again (2 of 2)" in error


def test_a_folder_that_cannot_be_written(server, tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(FetchError, match="cannot be written"):
    quick(server.published(), tmp_path / "file")


def test_publications():
  """Where the publisher put a hash into a file's name, it agrees with ours."""
  assert set(PUBLICATIONS) == {"vgg16", "vggsound-average", "vggsound-netvlad"}
  for publication in PUBLICATIONS.values():
    named = re.search(r"-([0-9a-f]{8})\.", publication.name)
    assert bool(named) == bool(publication.sha256) and publication.sha256.startswith(named[1] if named else "")
  assert PUBLICATIONS["vgg16"].limit > 553_433_881


def test_the_command(server, tmp_path, monkeypatch, capsys):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setitem(fetching.PUBLICATIONS, "vgg16", server.published(sha256=SHA256))
  monkeypatch.setitem(fetching.PUBLICATIONS, "vggsound-average", server.published())
  assert weights.main(["fetch", "vgg16"]) == 0
  path = tmp_path / "stajax" / "weights" / "vgg16.pth"
  assert path.parent == runtime.cache("weights") and path.is_file()
  out = capsys.readouterr().out
  assert out == f"{path}: SHA-256 {SHA256}, as published; to start from it: --init visual=vgg16\n"
  assert weights.main(["fetch", "vggsound-average", "--out", str(tmp_path / "here")]) == 0
  assert f"SHA-256 {SHA256}, not checked, because the publisher states none" in capsys.readouterr().out
  server.script = [HTTPStatus.NOT_FOUND]
  assert weights.main(["fetch", "vgg16", "--out", str(tmp_path / "there")]) == 2
  assert capsys.readouterr().err.splitlines()[-1].startswith(f"stajax weights: {server.published().address}: ")
  for wrong, message in (("fetch vgg61", "did you mean `vgg16`?"), ("fecth vgg16", "did you mean `fetch`?")):
    assert weights.main(wrong.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("stajax weights: unknown ") and message in error and error.count("\n") == 1
