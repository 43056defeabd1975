"""Tests that what the documentation names exists: files, functions, tests, pages, fields of the configuration."""

import ast
import re
import subprocess

import pytest

from helpers.examples import PAGES
from helpers.paths import ROOT

REFERENCE = re.compile(r"`((?:stajax|tests|configs|benchmarks|launch|docs)/[\w./-]+)`")
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)([^)#]+)(?:#[\w-]+)?\)")


def defined(path):
  """Returns the names that a Python file defines at its top level."""
  for node in ast.parse(path.read_text(encoding="utf-8")).body:
    match node:
      case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
        yield name
      case ast.Assign(targets=targets):
        yield from (target.id for target in targets if isinstance(target, ast.Name))
      case ast.AnnAssign(target=ast.Name(id=name)):
        yield name


def lines_outside_code(path):
  """Returns the lines of a page with their numbers, without its fenced blocks."""
  inside = False
  for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
    if line.lstrip().startswith("```"):
      inside = not inside
    elif not inside:
      yield number, line


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_paths_exist(page):
  for number, line in lines_outside_code(page):
    for path in REFERENCE.findall(line):
      assert (ROOT / path).exists(), f"{page.name}:{number}: {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_within_the_repository_exist(page):
  """The last word of a link to a Python file is a name that the file defines."""
  for number, line in lines_outside_code(page):
    for text, target in LINK.findall(line):
      path, name = page.parent / target, text.strip("`").rpartition(".")[2]
      assert path.exists(), f"{page.name}:{number}: {target}"
      if path.suffix == ".py":
        assert name in (path.stem, *defined(path)), f"{page.name}:{number}: {target} has no {name}"


def test_every_equation_has_code_and_a_test():
  text = (ROOT / "docs/paper_to_code.md").read_text(encoding="utf-8")
  rows = re.findall(r"^\| ([\d–, ]+) \|(.*)\|$", text.partition("## Sections")[0], flags=re.MULTILINE)
  found = set()
  for numbers, cells in rows:
    for part in numbers.split(", "):
      first, _, last = part.partition("–")
      found |= set(range(int(first), int(last or first) + 1))
    assert "(../stajax/" in cells and "(../tests/" in cells, numbers
  assert found == set(range(1, 18))


def test_every_page_is_in_a_table_of_contents():
  index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
  assert all(
    re.search(rf"^{page.stem}$", index, re.MULTILINE) for page in (ROOT / "docs").glob("*.md") if page.stem != "index"
  )


def test_pages_that_the_site_makes_are_not_committed():
  made = subprocess.run(["git", "ls-files", "docs/api", "docs/_build"], cwd=ROOT, capture_output=True, text=True)
  assert made.stdout.split() in ([], ["docs/api/index.md"])


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda path: path.name)
def test_lines_of_prose_are_short(page):
  """The rows of tables are lines, however long; `benchmarks/RESULTS.md` is written by a program."""
  if page.name == "RESULTS.md":
    return
  long = [number for number, line in lines_outside_code(page) if len(line) > 120 and not line.startswith("|")]
  assert not long, f"{page.name}: lines {long} have more than 120 characters"
