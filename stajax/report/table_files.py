"""Writes the paper's tables as a page, as Markdown, and as JSON for programs."""

import dataclasses
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2

from stajax.files import write_json, write_text
from stajax.report.paper_tables import PaperTable

Figure = tuple[str, str]
"""The path of a picture, relative to the page, and a line about it."""


def write_tables(
  out: Path, title: str, tables: Sequence[PaperTable], figures: Sequence[Figure] = (), banners: Sequence[str] = ()
) -> None:
  """Writes `index.html`, `tables.md` and `tables.json` into a folder, each atomically.

  Args:
    out: The folder; it is made if it is missing.
    title: The title of the page.
    tables: The tables.
    figures: Pictures below them.
    banners: Lines at the top, such as that the model was trained on rendered clips.
  """
  out.mkdir(parents=True, exist_ok=True)
  environment = jinja2.Environment(
    autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
  )
  template = resources.files("stajax.report").joinpath("paper_tables.html.j2").read_text(encoding="utf-8")
  page = environment.from_string(template).render(title=title, tables=tables, figures=figures, banners=banners)
  write_json(out / "tables.json", {table.name: dataclasses.asdict(table) for table in tables})
  write_text(out / "tables.md", "\n".join([f"# {title}", "", *banners, "", *map(markdown, tables)]))
  write_text(out / "index.html", page)


def markdown(table: PaperTable) -> str:
  """Returns a table as Markdown; its column `numbers` says which rows are published and which were measured here."""
  lines = [f"## {table.title}", ""]
  lines += [f"Missing: {line}" for line in table.missing] + [""]
  for part in table.parts:
    columns = ["method", "numbers", *part.columns]
    lines += [f"### {part.heading}", ""] if part.heading else []
    lines += [_line(columns), _line(["---"] * len(columns))]
    lines += [_line([row.title, row.origin, *row.cells]) for row in part.rows]
    lines.append("")
  return "\n".join([*lines, *(f"- {note}" for note in table.notes), ""])


def _line(cells: Sequence[str]) -> str:
  return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
