"""Recomputes the plan for ten million clips in docs/scaling.md from what the page says is put in."""

import re

import pytest

from helpers.paths import ROOT

SECTION = (
  (ROOT / "docs/scaling.md").read_text(encoding="utf-8").partition("## Ten million clips")[2].partition("\n## ")[0]
)
DAY = 86_400


def number(cell: str) -> float:
  return float(re.sub(r"[,%]| TB", "", cell))


def table(head: str) -> list[list[str]]:
  """Returns the rows of the table whose first head is given."""
  lines = SECTION.partition(f"| {head} |")[2].split("\n\n")[0].splitlines()[2:]
  return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


GIVEN = {row[0]: number(row[1]) for row in table("put in")}
MAPS = GIVEN["seconds of a clip"] * GIVEN["maps a second"]
RATES = {row[0]: number(row[1]) for row in table("device | maps a second")}


def test_the_set():
  assert GIVEN["clips"] == 10**7 and MAPS == 80 and len(RATES) == 4
  assert re.search(r"\*\*How to run it\.\*\* One command for each 100,000 clips, so a hundred", SECTION)


def test_devices():
  for _, *cells in table("device | maps a second"):
    rate, clips, hours, on_64, processors = map(number, cells)
    assert clips == pytest.approx(rate / MAPS, abs=0.051)
    assert hours == pytest.approx(GIVEN["clips"] * MAPS / rate / 3600, abs=0.5)
    assert on_64 == pytest.approx(GIVEN["clips"] * MAPS / rate / 3600 / 64, abs=0.05)
    assert processors == pytest.approx(rate / MAPS * GIVEN["processor seconds of a host for a clip"], abs=0.05)
  own, text = GIVEN["processor seconds of a host for a clip"], " ".join(SECTION.split())
  alone = MAPS / RATES["two CPU cores, the small model, measured"] + own / 2
  assert f"80 / 64 + {own:g} / 2 = {alone:.1f} seconds there, and the whole set 6,070 machine-hours" in text
  assert alone * GIVEN["clips"] / 3600 == pytest.approx(6070, abs=5)
  assert f"28 / {own:g} = {28 / own:.0f} clips a second" in text


def test_storage():
  for name, *cells in table("maps a second | bytes of a map"):
    of_map, of_clip, of_all, files = map(number, cells)
    count = GIVEN["seconds of a clip"] * number(name.partition(",")[0])
    assert of_clip == count * of_map + GIVEN["bytes of the numbers of a clip"]
    assert of_all == pytest.approx(of_clip * GIVEN["clips"] / 1e12, abs=0.051) and files == 2 * GIVEN["clips"]
  assert number(table("maps a second | bytes of a map")[0][1]) == GIVEN["bytes of a map"]
  clips = RATES["v5e, by the compiler"] / MAPS
  assert clips * 955_000 * 64 == pytest.approx(543e6, rel=0.01) and clips * 64 * 2 == pytest.approx(1140, rel=0.01)


def test_stops():
  start, stops = GIVEN["seconds to start a worker again"], GIVEN["stops of a worker a day"]
  for name, one, many in table("device | lost, a clip at a time"):
    seconds = MAPS / RATES[name]
    assert number(one) == pytest.approx(100 * stops * (start + seconds / 2) / DAY, abs=0.005)
    assert number(many) == pytest.approx(100 * stops * (start + 10_000 * seconds / 2) / DAY, abs=0.005)
  hours = GIVEN["clips"] * MAPS / RATES["v5e, by the compiler"] / 3600
  assert hours / 24 * stops * start / 60 == pytest.approx(13, abs=0.5) and "13 device-minutes of 313 hours" in SECTION
