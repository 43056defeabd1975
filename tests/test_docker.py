"""What can be said of the Dockerfiles without Docker: what they install and copy exists, and nothing runs as root."""

import re
import shutil
import subprocess
import tomllib

import pytest

from helpers.paths import ROOT

FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_copied_and_installed_exists(path):
  text = path.read_text()
  extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
  shown = (ROOT / ".dockerignore").read_text().split()
  for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
    for source in sources.split():
      assert (ROOT / source).exists() and f"!{source}" in shown, source
  (install,) = re.findall(r"/bin/pip install (.+)$", text, re.MULTILINE)
  wanted = re.fullmatch(r"'?/src(?:\[([\w,]+)\])?'?", install)
  assert wanted and set((wanted[1] or "").split(",")) - {""} <= set(extras)
  assert re.findall(r"^USER (.+)$", text, re.MULTILINE)[-1] not in ("root", "0")
  assert f"-f docker/{path.name} " in text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_linter_finds_nothing(path):
  if shutil.which("hadolint") is None:
    pytest.skip("needs hadolint")
  subprocess.run(["hadolint", path], check=True)
