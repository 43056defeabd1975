"""Draws the losses of several runs in one picture."""

import io
import math
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from stajax.report.plots import MAX_POINTS, STYLE, inline

# Placeholders for the colours of the style sheet; with the dashes, lines are also told apart without colours.
RUN_COLOURS = ("#020201", "#020202", "#020203", "#020204", "#020205", "#020206")
DASHES = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1)), (0, (8, 3)))


def compared_curves(logs: Sequence[tuple[int, Sequence[Mapping[str, float]]]], identifier: str, label: str) -> str:
  """Draws the loss of one network in several runs as an `<svg>`.

  Args:
    logs: The number of each run, which chooses its colour and dashes, and the lines of its log.
    identifier: Makes the ids inside the picture unique within a page; letters and digits.
    label: The text that screen readers say for the picture.
  """
  with matplotlib.rc_context({**STYLE, "svg.hashsalt": identifier}):
    figure = Figure(figsize=(3.6, 2.4), layout="constrained")
    axes = figure.subplots()
    for number, lines in logs:
      found = [(line["step"], line["loss"]) for line in lines if math.isfinite(line["loss"])]
      parts = np.array_split(np.array(found, np.float64).reshape(-1, 2), min(len(found), MAX_POINTS) or 1)
      steps, values = np.array([part.mean(axis=0) for part in parts if len(part)]).reshape(-1, 2).T
      which = number % len(RUN_COLOURS)
      axes.plot(
        steps,
        values,
        color=RUN_COLOURS[which],
        linestyle=DASHES[which],
        linewidth=1.5,
        marker="o" if len(steps) == 1 else None,
        markersize=4,
      )
    axes.set_title("loss", loc="left", fontsize="medium", pad=3)
    axes.grid(axis="y", linewidth=0.6)
    axes.tick_params(length=0)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("step")
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
  svg = inline(file.getvalue(), identifier, label)
  for number, colour in enumerate(RUN_COLOURS):
    svg = svg.replace(colour, f"var(--run-{number})")
  return svg
