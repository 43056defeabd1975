"""Runs the notebook in `examples/` from top to bottom."""

import ast
import json
import shutil

import matplotlib
import pytest

from helpers import tiny
from helpers.media_files import clicks, ramp, write_video
from helpers.paths import ROOT
from stajax import model

small_programs, random_networks, model_folder = tiny.small_programs, tiny.random_networks, tiny.model_folder


def run(source: str, names: dict[str, object]) -> object:
  """Runs a cell; returns the value of its last line, if it has one."""
  tree = ast.parse(source)
  last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
  exec(compile(tree, "cell", "exec"), names)
  return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.mark.usefixtures("small_programs")
def test_the_notebook_runs(tmp_path, monkeypatch, model_folder, capsys):
  matplotlib.use("agg")
  write_video(tmp_path / "my_video.mp4", ramp(6), sound=clicks(0.6, [0.2]))
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(model, "SHIPPED", model_folder / "model")
  notebook = json.loads((ROOT / "examples" / "predict.ipynb").read_text("utf-8"))
  cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
  assert all(not cell["outputs"] for cell in cells)  # they would be pictures of somebody's video
  names: dict[str, object] = {}
  shown = [run("".join(cell["source"]), names) for cell in cells]
  assert [hasattr(value, "_repr_html_") for value in shown].count(True) == 2
  assert (tmp_path / "overlay.mp4").is_file() and "the first frame's window" in capsys.readouterr().out
  shutil.rmtree(tmp_path, ignore_errors=True)
