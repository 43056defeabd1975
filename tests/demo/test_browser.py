"""The command `stajax demo`, driven in Chromium as a person would, and its memory and disk after many videos."""

import contextlib
import http.client
import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import numpy as np
import pytest

from helpers.media_files import clicks, ramp, write_video
from stajax.media.video import probe
from tests.predict.test_outputs import spot

SERIOUS = ("serious", "critical")


@contextlib.contextmanager
def running(folder, environment):
  """Runs the command with its temporary files in a folder; yields the process and the page's address."""
  command = [sys.executable, "-m", "stajax.demo", "--port", "0"]
  process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**environment, "TMPDIR": str(folder)})
  try:
    address = process.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:"), address
    yield process, address
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0 and not list(folder.glob("stajax-demo-*"))
  finally:
    process.kill()
    process.wait()


@pytest.fixture
def temporary(tmp_path):
  (tmp_path / "temporary").mkdir()
  return tmp_path / "temporary"


@pytest.fixture(scope="module")
def browser():
  playwright = pytest.importorskip("playwright.sync_api")
  found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
  with playwright.sync_playwright() as manager:
    browser = manager.chromium.launch(executable_path=next(filter(None, found), None))
    yield browser
    browser.close()


def axe(page):
  """Returns the serious findings of axe-core, and where they are."""
  package = pytest.importorskip("axe_playwright_python")
  page.evaluate((Path(package.__file__).parent / "axe.min.js").read_text())
  violations = page.evaluate("axe.run()")["violations"]
  return [(found["id"], found["nodes"][0]["target"]) for found in violations if found["impact"] in SERIOUS]


def opacity_of(page):
  """Returns the largest opacity of the map that is drawn over the video."""
  return page.evaluate("""() => {
    const canvas = document.getElementById("overlay");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return data.reduce((most, value, at) => (at % 4 === 3 ? Math.max(most, value) : most), 0);
  }""")


@pytest.mark.browser
def test_a_person_drops_videos_watches_and_downloads(tmp_path, temporary, browser, one_device):
  frames = spot(30, 120, 160)
  played = write_video(tmp_path / "seen.mp4", frames, sound=clicks(3, [0.5, 1.5]))
  foreign = write_video(tmp_path / "old.mkv", frames, codec="ffv1", pixels="bgr0")
  broken = tmp_path / "notes.mp4"
  broken.write_text("not a video")
  requests, errors = [], []
  with running(temporary, one_device) as (_, address):
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(address)
    assert not axe(page)
    page.set_input_files("#pick", [played, foreign, broken])
    page.locator("#list li.done").nth(1).wait_for(timeout=120_000)
    assert "not a video that can be read" in page.locator("#list li.failed").inner_text()

    page.locator("#list li", has_text="seen.mp4").get_by_role("button").first.click()
    assert "160 × 120" in page.locator("#facts").inner_text() and page.locator(".tile").count() == 2
    page.wait_for_timeout(500)
    assert opacity_of(page) > 100
    page.get_by_label("Opacity").fill("0")
    assert opacity_of(page) == 0
    page.get_by_label("Opacity").fill("50")
    page.get_by_label("Smoothing in time").fill("0.5")
    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Pause").click()
    assert page.evaluate("document.getElementById('video').played.length") == 1
    page.get_by_label("Without sound").check()
    assert "(without sound)" in page.locator("#made-of").inner_text()

    with page.expect_download(timeout=60_000) as overlay:
      page.get_by_label("Download: Overlay video").click()
    overlay.value.save_as(tmp_path / "overlay.mp4")
    assert overlay.value.suggested_filename == "seen.overlay.mp4" and probe(tmp_path / "overlay.mp4").width == 160
    with page.expect_download(timeout=60_000) as numbers:
      page.get_by_label("Download: Numbers of every frame").click()
    numbers.value.save_as(tmp_path / "numbers.json")
    about = json.loads((tmp_path / "numbers.json").read_text())
    assert about["settings"] == {"view": "final_no_sound", "smooth": 0.5} and len(about["frames"]) == 30

    page.locator("#list li", has_text="old.mkv").get_by_role("button").first.click()
    page.locator("#title", has_text="old.mkv").wait_for()
    page.locator("video[src*='/files/']").wait_for(timeout=60_000)  # the copy, since no browser plays this codec
    page.wait_for_timeout(1000)
    assert page.evaluate("document.getElementById('video').videoWidth") == 160
    assert page.locator("#silent").is_visible() and not page.locator("#moved").is_visible()

    for width in (390, 1400):
      for scheme in ("light", "dark"):
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=scheme)
        assert not axe(page), (width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    for name in ("seen.mp4", "old.mkv", "notes.mp4"):
      page.get_by_label(f"Remove {name}").click()
      page.locator("#list li", has_text=name).wait_for(state="detached")
    assert page.locator("#empty").is_visible()
    page.close()
  assert not errors and all(url.startswith(address) for url in requests)


FOLDER = """() => {
  const drop = new Event("drop", { bubbles: true, cancelable: true });
  const items = [{ webkitGetAsEntry: () => ({ isDirectory: true, name: "holiday" }) }];
  drop.dataTransfer = { items, files: [new File([""], "holiday")] };
  document.body.dispatchEvent(drop);
}"""
"""Drops a folder. A script cannot put one into what it drops, so that is made up."""


@pytest.mark.browser
def test_a_page_finds_its_server_again_and_refuses_folders(tmp_path, temporary, browser, one_device):
  video = write_video(tmp_path / "seen.mp4", spot(10, 120, 160))
  with running(temporary, one_device) as (_, address):
    page = browser.new_page()
    page.goto(address)
    alert = page.locator("#alert")
    page.set_input_files("#pick", video)
    page.locator("#list li", has_text="seen.mp4").wait_for()
    page.route("**/state", lambda route: route.abort())
    page.get_by_text("The page cannot reach").wait_for(timeout=10_000)
    page.unroute("**/state")
    page.locator("#list li.done").wait_for(timeout=120_000)
    alert.wait_for(state="hidden")
    page.evaluate(FOLDER)
    assert alert.inner_text() == "holiday: a folder cannot be sent. Please drop the videos in it."
    assert page.locator("#list li").count() == 1
    said = "Please open the whole address"  # as another server at the same port does
    page.route("**/state", lambda route: route.fulfill(status=403, content_type="text/plain", body=said))
    page.evaluate("dispatchEvent(new Event('focus'))")
    page.get_by_text(said).wait_for(timeout=10_000)
    page.close()


def ask(address, path, method="GET", body=None):
  url = urllib.parse.urlparse(address)
  connection = http.client.HTTPConnection(url.netloc, timeout=300)
  connection.request(method, url.path + path, body)
  content = connection.getresponse().read()
  connection.close()
  return content


def wait_for(read):
  for _ in range(3000):
    found = read()
    if found["state"] in ("done", "failed"):
      return found
    time.sleep(0.1)
  raise AssertionError(found)


def resident(process):
  """Returns the megabytes of memory of a process and of its children."""
  listing = subprocess.run(["ps", "-e", "-o", "pid=,ppid=,rss="], capture_output=True, text=True, check=True)
  rows = [tuple(map(int, line.split())) for line in listing.stdout.splitlines()]
  family = {process.pid}
  for pid, parent, _ in sorted(rows):
    family |= {pid} if parent in family else set()
  return sum(rss for pid, _, rss in rows if pid in family) / 1024


@pytest.mark.slow
def test_twenty_videos_leave_memory_and_disk_as_they_were(tmp_path, temporary, one_device):
  video = write_video(tmp_path / "a.mp4", ramp(20, 240, 320), sound=clicks(2, [0.5, 1])).read_bytes()
  used = []
  with running(temporary, one_device) as (process, address):
    for number in range(25):
      _watch_and_download(address, video, "overlay" if number % 2 else "all")
      used.append(resident(process))
      assert not [path for path in temporary.rglob("*") if path.is_file() and path.name != "lock"]
  print([round(megabytes) for megabytes in used])
  assert np.mean(used[-5:]) < np.mean(used[:5]) + 50


def _watch_and_download(address, content, kind):
  (held,) = json.loads(ask(address, "videos?name=a.mp4", "POST", content))["videos"]

  def state():
    return json.loads(ask(address, "state"))["videos"][0]

  assert wait_for(state)["state"] == "done"
  file = json.loads(ask(address, f"videos/{held['id']}/files", "POST", json.dumps({"kind": kind})))["id"]
  assert wait_for(lambda: state()["files"][0])["state"] == "done"
  assert len(ask(address, f"videos/{held['id']}/files/{file}")) > 1000
  ask(address, f"videos/{held['id']}", "DELETE")
