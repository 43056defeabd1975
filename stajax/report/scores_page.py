"""Writes an evaluation: `scores.json`, `evaluation.json`, `per_video.csv` and a self-contained page `index.html`."""

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jinja2
import numpy as np

from stajax.evaluation import BASELINES, CENTRE_SIGMA, Evaluation, VideoScores
from stajax.metrics.protocol import METRICS, SPLITS, STEP

METRIC_TITLES = {"auc_judd": "AUC-J", "s_auc": "s-AUC", "nss": "NSS", "sim": "SIM", "cc": "CC"}
NOTES = (
  "A frame's score → mean over the video's frames → mean over all rows of the test lists; never weighted by frames.",
  "s-AUC's other pixels are those fixated in the same video's other frames.",
  f"centre: a Gaussian with a deviation of {CENTRE_SIGMA} of the frame's width and height. uniform: a constant map, "
  "for which AUC-J is about 0.5 (ties are broken at random) and the other metrics are not defined (null).",
)
SYNTHETIC_NOTE = "synthetic: rendered clips with sampled viewers, not eye tracking."


def write_evaluation(
  evaluation: Evaluation,
  out: Path,
  notes: Sequence[str] = (),
  fold_lists: Sequence[Path] = (),
  skipped: Sequence[tuple[str, str, str]] = (),
  title: str = "Scores",
) -> dict[str, dict[str, dict[str, float | None]]]:
  """Writes the four files into `out`, each atomically.

  Args:
    notes: lines for people, shown on the page and in evaluation.json.
    skipped: (database, video, reason) of videos that the tree's reader left out, beside those of the evaluation.

  Returns:
    What `scores.json` holds: {set: {method: {metric: value, None where undefined}}}.
  """
  out = Path(out)
  out.mkdir(parents=True, exist_ok=True)
  scores = {
    name: {method: {metric: _null(value) for metric, value in row.items()} for method, row in methods.items()}
    for name, methods in evaluation.set_scores().items()
  }
  about = describe(evaluation, notes, fold_lists, skipped)
  _write(out / "per_video.csv", per_video_csv(evaluation))
  _write(out / "index.html", render_page(scores, about, title))
  _write(out / "evaluation.json", json.dumps(about, indent=2, ensure_ascii=False) + "\n")
  _write(out / "scores.json", json.dumps(scores, indent=2) + "\n")
  return scores


def describe(
  evaluation: Evaluation,
  notes: Sequence[str] = (),
  fold_lists: Sequence[Path] = (),
  skipped: Sequence[tuple[str, str, str]] = (),
) -> dict:
  """What `evaluation.json` holds: protocol, settings, frames scored and dropped, map sizes, what was left out."""
  sets = evaluation.sets()
  synthetic = [SYNTHETIC_NOTE] if any(video.database == "synthetic" for video in evaluation.videos) else []
  return {
    "protocol": "stavis",
    "stajax": _version(),
    "seed": evaluation.seed,
    "s_auc_splits": SPLITS,
    "s_auc_step": STEP,
    "stride": evaluation.stride,
    "first_frame": evaluation.first_frame,
    "nan_policy": evaluation.nan_policy,
    "sets": {name: _describe_set(evaluation, videos) for name, videos in sets.items()},
    "map_sizes_height_width": evaluation.map_sizes,
    "fold_lists": [path.name for path in fold_lists],
    "skipped": [
      {"database": database, "video": video, "reason": reason}
      for database, video, reason in (*skipped, *evaluation.skipped)
    ],
    "notes": [*synthetic, *notes, *NOTES],
  }


def _describe_set(evaluation: Evaluation, videos: list[VideoScores]) -> dict:
  frames: dict[str, dict[str, dict[str, int]]] = {}
  for method in evaluation.methods:
    members = [video for video in videos if method in video.scores]
    for metric in METRICS:
      values = np.concatenate([video.scores[method][metric] for video in members] or [np.empty(0)])
      undefined = int(np.isnan(values).sum())
      kept = evaluation.nan_policy == "zero"
      frames.setdefault(method, {})[metric] = {
        "scored": len(values) - (0 if kept else undefined),
        "dropped": 0 if kept else undefined,
        "counted_as_zero": undefined if kept else 0,
        "videos_dropped": sum(math.isnan(evaluation.video_score(video, method, metric)) for video in members),
      }
  return {
    "videos": len({(video.database, video.name) for video in videos}),
    "list_rows": sum(video.entries for video in videos),
    "frames": sum(len(video.frames) for video in videos),
    "frames_without_map": sum(video.num_asked - len(video.frames) for video in videos),
    "methods": frames,
  }


def per_video_csv(evaluation: Evaluation) -> str:
  """One row a video and method: database, video, split, list_rows, frames, method, then the metrics."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(["database", "video", "split", "list_rows", "frames", "method", *METRICS])
  for video in evaluation.videos:
    for method in video.scores:
      values = [evaluation.video_score(video, method, metric) for metric in METRICS]
      cells = ["" if math.isnan(value) else f"{value:.6f}" for value in values]
      split = video.split or "all"
      writer.writerow([video.database, video.name, split, video.entries, len(video.frames), method, *cells])
  return text.getvalue()


def render_page(scores: Mapping[str, Mapping[str, Mapping[str, float | None]]], about: Mapping, title: str) -> str:
  """The page: a table for every set, with the best of each column in bold, and how it was scored."""
  environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
  tables = []
  for name, methods in scores.items():
    defined = {metric: [row[metric] for row in methods.values() if row[metric] is not None] for metric in METRICS}
    best = {metric: max(values, default=None) for metric, values in defined.items()}
    rows = [
      (method, method in BASELINES, [(_number(row[metric]), _is_best(row[metric], best[metric])) for metric in METRICS])
      for method, row in methods.items()
    ]
    tables.append((name, about["sets"][name], rows))
  return environment.from_string(PAGE).render(
    title=title, tables=tables, about=about, headings=[METRIC_TITLES[metric] for metric in METRICS], metrics=METRICS
  )


def format_table(scores: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> str:
  """The scores as lines of text."""
  width = max((len(method) for methods in scores.values() for method in methods), default=0)
  lines = []
  for name, methods in scores.items():
    lines.append(f"{name}")
    lines.append(" " * (width + 4) + "".join(f"{METRIC_TITLES[metric]:>8}" for metric in METRICS))
    for method, row in methods.items():
      lines.append(f"  {method:<{width + 2}}" + "".join(f"{_number(row[metric]):>8}" for metric in METRICS))
  return "\n".join(lines)


def _number(value: float | None) -> str:
  return "–" if value is None else f"{value:.3f}"


def _is_best(value: float | None, best: float | None) -> bool:
  return value is not None and best is not None and round(value, 3) >= round(best, 3)


def _null(value: float) -> float | None:
  return None if math.isnan(value) else value


def _version() -> str:
  try:
    return version("stajax")
  except PackageNotFoundError:
    return "not installed"


def _write(path: Path, text: str) -> None:
  temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  temporary.write_text(text, encoding="utf-8")
  os.replace(temporary, path)


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title }}</title>
<style>
:root { --text: #1c1d20; --soft: #5d6270; --line: #d9dce3; --page: #fff; --band: #f5f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e7e8ec; --soft: #a0a5b3; --line: #363a44; --page: #16181c; --band: #1e2126; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); max-width: 52rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .25rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .25rem; }
p.soft, li, footer { color: var(--soft); font-size: .92rem; }
div.scroll { overflow-x: auto; }
table { border-collapse: collapse; min-width: 60%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
thead th { background: var(--band); }
tr.baseline td { color: var(--soft); }
td.best { font-weight: 700; }
details { margin-top: .4rem; }
summary { cursor: pointer; color: var(--soft); font-size: .92rem; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p class="soft">Protocol {{ about.protocol }}, seed {{ about.seed }},
{% if about.stride == 1 %}every frame{% else %}every {{ about.stride }}th frame{% endif %} from frame
{{ about.first_frame }}, undefined scores: {% if about.nan_policy == "zero" %}counted as 0{% else %}dropped{% endif %}.
Higher is better in every column; bold: best.</p>
{% for name, set, rows in tables %}
<h2>{{ name }}</h2>
<p class="soft">{{ set.videos }} videos, {{ set.list_rows }} list rows, {{ set.frames }} frames
{%- if set.frames_without_map %} ({{ set.frames_without_map }} more have no map){% endif %}</p>
<div class="scroll"><table>
<thead><tr><th>method</th>{% for heading in headings %}<th>{{ heading }}</th>{% endfor %}</tr></thead>
<tbody>
{% for method, baseline, cells in rows %}
<tr{% if baseline %} class="baseline"{% endif %}><td>{{ method }}</td>
{%- for text, best in cells %}<td{% if best %} class="best"{% endif %}>{{ text }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
<details><summary>Frames left out because a score is not defined</summary>
<div class="scroll"><table>
<thead><tr><th>method</th>{% for heading in headings %}<th>{{ heading }}</th>{% endfor %}</tr></thead>
<tbody>
{% for method, counts in set.methods.items() %}
<tr><td>{{ method }}</td>{% for metric in metrics %}<td>{{ counts[metric].dropped }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div></details>
{% endfor %}
{% if about.skipped %}
<h2>Videos left out</h2>
<ul>{% for row in about.skipped %}<li>{{ row.database }}/{{ row.video }}: {{ row.reason }}</li>{% endfor %}</ul>
{% endif %}
<h2>How to read this</h2>
<ul>
{% for note in about.notes %}<li>{{ note }}</li>
{% endfor %}
<li>Map sizes (height × width):
{% for method, sizes in about.map_sizes_height_width.items() %}{{ method }}
{% for size in sizes %}{{ size[0] }}×{{ size[1] }}{{ ", " if not loop.last }}{% endfor %}{{ "; " if not loop.last }}
{%- endfor %}. Maps are blurred at their own size, so the size has an influence.</li>
</ul>
<footer>stajax {{ about.stajax }}</footer>
</body>
</html>
"""
