"""Writes `index.html`, the self-contained page of a training or an evaluation: scores, curves, examples and facts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup, escape

from stajax.files import write_text
from stajax.report import names, senses, tables
from stajax.report.accuracy import accuracy_table
from stajax.report.styles import page_style
from stajax.report.table_1 import COMPONENTS
from stajax.report.uncertainty import format_tests, format_uncertainty
from stajax.scoring.protocol import METRICS, metric_of
from stajax.senses import OWN, split_method

_SYNTHETIC = "synthetic"
"""The notes that begin with this word make the banner."""

LogLines = Sequence[Mapping[str, float]]
"""The lines of a stage's log, each with `step`, `loss` and other scalars."""


@dataclass(frozen=True)
class Example:
  """A frame of the gallery.

  Attributes:
    title: Identifies the frame: its clip, number, tag and flags.
    frame: The frame (H, W, 3), uint8 RGB.
    maps: {method: (h, w) uint8}. They are shown in this order over the frame, each relative to its maximum.
    viewers: The density of the viewers' fixations, (H, W) uint8; None where nobody's eyes were tracked.
    fixations: The fixated pixels, (H, W) bool, which are drawn as points on the viewers' picture.
    sound: The log-spectrogram of the second of sound around the frame, (257, n) float; None where there is none.
    note: A line below the pictures.
    compared: The methods whose maps stand beside the frame and the viewers, in a row of their own above all others.
  """

  title: str
  frame: np.ndarray
  maps: Mapping[str, np.ndarray]
  viewers: np.ndarray | None = None
  fixations: np.ndarray | None = None
  sound: np.ndarray | None = None
  note: str = ""
  compared: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
  """What a page shows. Parts that are empty are left out; without scores the page is about learning alone.

  Attributes:
    title: The title of the page.
    scores: What `write_scores` returned. The methods `row_01` … `row_25` make a table of their own, the ablation.
    about: What `describe` returned. Those of its notes that begin with "synthetic" become a banner at the top. Under
      `senses` it may have what `compare_senses` returned, which makes a section in place of rows in the tables, and
      under `accuracy` what `measure_accuracy` returned.
    subtitle: One or two sentences on what the run is.
    notes: Further lines at the top, such as the provenance of the model; "synthetic…" as above.
    curves: The log of each stage.
    examples: The gallery.
    moments: The (title, svg) of each video's scores over time.
    facts: {name: text}, such as times, versions, counts of pseudo-fixations of weight 0.
    row_titles: The titles of the ablation's rows by method, where they differ from those of `stajax.report.table_1`.
  """

  title: str
  scores: tables.Scores
  about: Mapping[str, Any]
  subtitle: str = ""
  notes: Sequence[str] = ()
  curves: Mapping[str, LogLines] = field(default_factory=dict)
  examples: Sequence[Example] = ()
  moments: Sequence[tuple[str, str]] = ()
  facts: Mapping[str, str] = field(default_factory=dict)
  row_titles: Mapping[str, str] = field(default_factory=dict)


def write_page(out: str | Path, page: Page) -> None:
  """Writes `out/index.html` atomically. Equal pages give equal bytes."""
  environment = jinja2.Environment(
    autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
  )
  environment.filters["code"] = _mark_code
  template = resources.files("stajax.report").joinpath("page.html.j2").read_text(encoding="utf-8")
  shown = {
    name: {method: row for method, row in rows.items() if not is_shown_apart(method)}
    for name, rows in page.scores.items()
  }
  metrics = tables.metrics_of(page.scores)
  methods = list(dict.fromkeys(method for rows in shown.values() for method in rows))
  lines = list(dict.fromkeys([*page.notes, *page.about["notes"]]))
  banners = [line for line in lines if line.startswith(_SYNTHETIC)]
  text = environment.from_string(template).render(
    title=page.title,
    style=page_style(),
    subtitle=page.subtitle,
    banner=_join_banners(banners),
    notes=[line for line in page.notes if line not in banners],
    about={**page.about, "notes": [line for line in page.about["notes"] if line not in banners]},
    tables=[(name, tables.score_rows(rows, metrics)) for name, rows in shown.items() if rows],
    metrics=[(name, (metric := metric_of(name)).title, metric.meaning) for name in metrics],
    falling=[name for name in metrics if metric_of(name).lower_is_better],
    methods=[(method, names.title_of(method), names.description_of(method)) for method in methods],
    sets=names.SETS,
    ablation=tables.ablation_tables(page.scores, page.row_titles),
    components=COMPONENTS,
    senses=page.about.get("senses"),
    sense_tables=senses.sense_tables(page.about["senses"]) if "senses" in page.about else [],
    sense_metrics=[(name, METRICS[name].title, METRICS[name].meaning) for name in senses.ORDER],
    accuracy=page.about.get("accuracy"),
    accuracy_table=accuracy_table(page.about["accuracy"]) if "accuracy" in page.about else None,
    intervals=format_uncertainty(page.about, metrics) if page.about.get("intervals") else [],
    tests=format_tests(page.about, metrics) if page.about.get("paired_tests") else [],
    map_sizes=_map_sizes(page.about["map_sizes_height_width"]),
    curves=[_curve(stage, log, f"curve{i}") for i, (stage, log) in enumerate(page.curves.items())],
    moments=[(title, Markup(svg)) for title, svg in page.moments],
    num_videos=sum(row["videos"] for name, row in page.about.get("sets", {}).items() if "/" not in name),
    examples=[_gallery_row(example) for example in page.examples],
    has_viewers=any(example.viewers is not None for example in page.examples),
    facts=page.facts,
    title_of=names.title_of,
  )
  write_text(Path(out) / "index.html", text)


def _join_banners(lines: Sequence[str]) -> str:
  """Returns what lines such as "synthetic: this." and "synthetic: that." say, "this; that."; "" if there are none."""
  said = [line.removeprefix(_SYNTHETIC).removeprefix(":").strip() for line in lines]
  return "; ".join([*(text.removesuffix(".") for text in said[:-1]), *said[-1:]])


def _mark_code(text: str) -> Markup:
  """Returns a text as HTML in which what stands between backquotes is code."""
  return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def is_shown_apart(method: str) -> bool:
  """Returns whether a method is a row of the paper's ablation, or lacks a sense."""
  return method in tables.ABLATION_METHODS or split_method(method)[1] != OWN


def _map_sizes(sizes: Mapping[str, Sequence[Sequence[int]]]) -> list[tuple[str, str]]:
  """Returns (sizes, titles of the methods whose maps have them)."""
  grouped: dict[str, list[str]] = {}
  for method, found in sizes.items():
    text = ", ".join(f"{height}×{width}" for height, width in found)
    title = names.title_of(method)
    if is_shown_apart(method):
      title = "rows of Table 1" if method in tables.ABLATION_METHODS else "the same without a sense"
    grouped.setdefault(text, []).append(title)
  # Some titles have commas.
  return [(text, " · ".join(dict.fromkeys(titles))) for text, titles in grouped.items()]


def _curve(stage: str, log: LogLines, identifier: str) -> dict[str, str]:
  """Returns a stage's curves as a picture, and its last values in words."""
  from stajax.report import plots  # loads Matplotlib, which scoring alone does not need

  title = names.STAGES.get(stage, stage)
  if not log:
    return {"title": title, "text": "The log has no lines.", "svg": ""}
  values = [f"{name.replace('_', ' ')} {value:.3g}" for name, value in log[-1].items() if plots.is_curve(name)]
  text = f"After {log[-1]['step']:,.0f} steps: {', '.join(values)}"
  rates = [line["examples_per_second"] for line in log if "examples_per_second" in line]
  if rates:
    text += f"; {np.median(rates):,.0f} examples a second"
  label = escape(f"Learning curves of {title}. {text}")
  return {"title": title, "text": text, "svg": Markup(plots.learning_curves(log, identifier, label))}


def _gallery_row(example: Example) -> dict[str, Any]:
  from stajax.report import plots  # see above

  frame = ("frame", plots.picture(example.frame))
  sound = [] if example.sound is None else [("sound", plots.spectrogram_picture(example.sound))]
  maps = {name: plots.heat_picture(example.frame, values) for name, values in example.maps.items()}
  viewers = []
  if example.viewers is not None:
    viewers.append(("viewers", plots.heat_picture(example.frame, example.viewers, example.fixations)))
  compared = [(name, maps[name]) for name in example.compared if name in maps]
  others = [(name, picture) for name, picture in maps.items() if name not in example.compared]
  rows = [[frame, *viewers, *compared], [*others, *sound]] if compared else [[frame, *viewers, *others, *sound]]
  return {"title": example.title, "note": example.note, "rows": rows}
