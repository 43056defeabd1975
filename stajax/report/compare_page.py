"""Writes `index.html` of a comparison of runs: scores with differences, learning curves together, the same frames."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

import stajax
from stajax.files import write_text
from stajax.report import names
from stajax.report.compare import Cell, SetTable
from stajax.report.page import is_shown_apart
from stajax.report.run_folder import RunFolder
from stajax.report.styles import page_style
from stajax.report.tables import format_score
from stajax.scoring.protocol import metric_of

_OWN = ("Frame", "Viewers", "Sound")
"""The captions of pictures that do not depend on the run."""


def write_comparison(out: Path, runs: Sequence[RunFolder], tables: Sequence[SetTable], warnings: Sequence[str]) -> None:
  """Writes `out/index.html` atomically."""
  environment = jinja2.Environment(
    autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
  )
  template = resources.files("stajax.report").joinpath("compare.html.j2").read_text(encoding="utf-8")
  metrics = dict.fromkeys(metric for table in tables for metric in table.metrics)
  text = environment.from_string(template).render(
    style=page_style(),
    runs=runs,
    warnings=warnings,
    tables=[_shown(table) for table in tables],
    sets=names.SETS,
    title_of=names.title_of,
    cell=_cell_texts,
    metrics={metric: (metric_of(metric).title, metric_of(metric).meaning) for metric in metrics},
    curves=_curves(runs),
    frames=same_frames(runs),
    stajax=stajax.__version__,
  )
  write_text(out / "index.html", text)


def _shown(table: SetTable) -> SetTable:
  """Returns a table without the rows of the ablation and those that lack a sense, which would be most of the page."""
  return replace(table, rows={method: row for method, row in table.rows.items() if not is_shown_apart(method)})


def _cell_texts(cell: Cell) -> tuple[str, str]:
  """Returns the score, and the difference with its interval ("" if there is none)."""
  if cell.difference is None:
    return format_score(cell.score), ""
  difference = f"{round(cell.difference, 3) + 0.0:+.3f}".replace("-", "−")
  half = f" ±\N{NO-BREAK SPACE}{cell.half_width:.3f}" if cell.half_width == cell.half_width else ""
  return format_score(cell.score), difference + half


def same_frames(runs: Sequence[RunFolder]) -> list[tuple[str, list[tuple[str, str]], list[tuple[str, dict[str, str]]]]]:
  """Returns the frames that the pages of at least two runs show.

  Returns:
    For each frame its title; the (caption, picture) of those pictures that do not depend on a run; and for each caption
    of the others {run: picture}, of those that at least two runs have.
  """
  found = []
  for title in dict.fromkeys(title for run in runs for title in run.frames):
    having = [run for run in runs if title in run.frames]
    if len(having) < 2:
      continue
    own = [(caption, having[0].frames[title][caption]) for caption in _OWN if caption in having[0].frames[title]]
    captions = dict.fromkeys(caption for run in having for caption in run.frames[title] if caption not in _OWN)
    pictures = [
      (caption, {run.name: run.frames[title][caption] for run in having if caption in run.frames[title]})
      for caption in captions
    ]
    found.append((title, own, [(caption, by_run) for caption, by_run in pictures if len(by_run) > 1]))
  return found


def _curves(runs: Sequence[RunFolder]) -> list[Mapping[str, object]]:
  """Returns a picture of the losses of each network that at least two runs have trained."""
  from stajax.report.compared_curves import compared_curves  # loads Matplotlib

  found: list[Mapping[str, object]] = []
  for stage in dict.fromkeys(stage for run in runs for stage in run.curves):
    logs = {run.name: run.curves[stage] for run in runs if stage in run.curves}
    if len(logs) < 2:
      continue
    places = [i for i, run in enumerate(runs) if stage in run.curves]
    title = names.STAGES.get(stage, stage)
    ends = {name: lines[-1] for name, lines in logs.items()}
    last = "; ".join(f"{name} {end['loss']:.3g} after {end['step']:,.0f} steps" for name, end in ends.items())
    label = escape(f"Losses of {title}: {last}")
    svg = compared_curves(list(zip(places, logs.values())), f"compared{len(found)}", label)
    found.append({"title": title, "svg": Markup(svg), "text": f"Loss: {last}"})
  return found
