"""The self-contained page `index.html` of a training run or an evaluation: scores, learning curves, examples, facts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup, escape

from stajax.files import write_text
from stajax.report import ablation_table, names
from stajax.report.score_files import Scores, format_score
from stajax.report.table_1 import COMPONENTS
from stajax.scoring.baselines import BASELINES
from stajax.scoring.protocol import METRICS


@dataclass(frozen=True)
class Example:
  """A frame of the gallery.

  title: such as clip, frame, tag and flags.
  frame: (H, W, 3) uint8 RGB.
  maps: {method: (h, w) uint8}, shown in this order over the frame, each relative to its maximum.
  viewers: (H, W) uint8 density.
  fixations: (H, W) bool, drawn as points on the viewers' picture.
  note: a line below the pictures.
  """

  title: str
  frame: np.ndarray
  maps: Mapping[str, np.ndarray]
  viewers: np.ndarray
  fixations: np.ndarray | None = None
  note: str = ""


def write_report(
  out: str | Path,
  *,
  title: str,
  scores: Scores,
  about: Mapping,
  subtitle: str = "",
  notes: Sequence[str] = (),
  curves: Mapping[str, Sequence[Mapping[str, float]]] | None = None,
  examples: Sequence[Example] = (),
  facts: Mapping[str, str] | None = None,
  titles: Mapping[str, str] | None = None,
) -> None:
  """Writes `out/index.html` atomically; equal arguments give equal bytes. Parts that are empty are left out.

  Args:
    scores: what `write_scores` returned. The methods `row_01` … `row_25` make a table of their own, the ablation.
    about: what `describe` returned. Those of its notes that begin with "synthetic" become a banner at the top.
    subtitle: one or two sentences on what the run is.
    notes: further lines at the top, such as the provenance of the model; "synthetic…" as above.
    curves: {stage: lines of its log}, each line with `step`, `loss` and other scalars.
    facts: {name: text}, such as times, versions, counts of pseudo-fixations of weight 0.
    titles: of the ablation's rows by method, where they differ from those of `stajax.report.table_1`.
  """
  out = Path(out)
  out.mkdir(parents=True, exist_ok=True)
  lines = list(dict.fromkeys([*notes, *about["notes"]]))
  banners = [line for line in lines if line.startswith("synthetic")]
  environment = jinja2.Environment(
    autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
  )
  template = resources.files("stajax.report").joinpath("page.html.j2").read_text(encoding="utf-8")
  shown = {
    name: {method: row for method, row in rows.items() if method not in ablation_table.METHODS}
    for name, rows in scores.items()
  }
  methods = list(dict.fromkeys(method for rows in shown.values() for method in rows))
  page = environment.from_string(template).render(
    title=title,
    subtitle=subtitle,
    banners=banners,
    notes=[line for line in notes if line not in banners],
    about={**about, "notes": [line for line in about["notes"] if line not in banners]},
    tables=[_table(name, rows) for name, rows in shown.items() if rows],
    metrics=[(name, metric.title, metric.meaning) for name, metric in METRICS.items()],
    methods=[(method, names.title_of(method), names.text_of(method)) for method in methods],
    sets=names.SETS,
    ablation=ablation_table.ablation_tables(scores, titles or {}),
    components=COMPONENTS,
    map_sizes=_map_sizes(about["map_sizes_height_width"]),
    curves=[_curve(stage, lines, f"curve{i}") for i, (stage, lines) in enumerate((curves or {}).items())],
    examples=[_gallery_row(example) for example in examples],
    facts=facts or {},
    title_of=names.title_of,
  )
  write_text(out / "index.html", page)


def _table(name: str, rows: Mapping[str, Mapping[str, float | None]]) -> dict:
  """A set's rows as (method, is a baseline, cells), a cell as (text, is the best of its column)."""
  shown = {method: [format_score(row[metric]) for metric in METRICS] for method, row in rows.items()}
  columns = zip(*[[row[metric] for metric in METRICS] for row in rows.values()])
  best = [format_score(max((value for value in column if value is not None), default=None)) for column in columns]
  return {
    "name": name,
    "rows": [
      (method, method in BASELINES, [(text, text == top != format_score(None)) for text, top in zip(texts, best)])
      for method, texts in shown.items()
    ],
  }


def _map_sizes(sizes: Mapping[str, Sequence[Sequence[int]]]) -> list[tuple[str, str]]:
  """(sizes, titles of the methods that have them)."""
  grouped: dict[str, list[str]] = {}
  for method, found in sizes.items():
    text = ", ".join(f"{height}×{width}" for height, width in found)
    title = "rows of Table 1" if method in ablation_table.METHODS else names.title_of(method)
    grouped.setdefault(text, []).append(title)
  return [(text, ", ".join(dict.fromkeys(titles))) for text, titles in grouped.items()]


def _curve(stage: str, lines: Sequence[Mapping[str, float]], identifier: str) -> dict:
  """A stage's picture and what it ended with, in words."""
  from stajax.report import plots  # Matplotlib only where something is drawn: scoring processes import this module

  last = lines[-1] if lines else {}
  values = [f"{name.replace('_', ' ')} {value:.3g}" for name, value in last.items() if name not in plots.NOT_CURVES]
  text = f"After {last['step']:,.0f} steps: {', '.join(values)}" if lines else "The log has no lines."
  rates = [line["examples_per_second"] for line in lines if "examples_per_second" in line]
  if rates:
    text += f"; {np.median(rates):,.0f} examples a second"
  title = names.STAGES.get(stage, stage)
  label = escape(f"Learning curves of {title}. {text}")
  return {"title": title, "text": text, "svg": Markup(plots.learning_curves(lines, identifier, label)) if lines else ""}


def _gallery_row(example: Example) -> dict:
  from stajax.report import plots  # see above

  pictures = [("frame", plots.picture(example.frame))]
  pictures += [(name, plots.heat_picture(example.frame, values)) for name, values in example.maps.items()]
  pictures += [("viewers", plots.heat_picture(example.frame, example.viewers, example.fixations))]
  return {"title": example.title, "note": example.note, "pictures": pictures}
