"""Logs of trainings, of which any line may be cut or be something else."""

import json

import pytest

from stajax.report.log_lines import read_log

WHOLE = {"step": 3, "loss": 0.5}


@pytest.mark.parametrize(
  "line", ['{"step": 4, "lo', "[" * 100_000, '{"loss": 1}', '{"step": "4"}', '{"step": 4, "loss": []}', "7", "\0", ""]
)
def test_what_is_no_line_of_a_log_is_skipped(tmp_path, line):
  path = tmp_path / "log.jsonl"
  path.write_text(f"{line}\n{json.dumps(WHOLE)}\n{line}")
  assert read_log(path) == [WHOLE]
  assert read_log(tmp_path / "missing") == []
