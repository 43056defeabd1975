"""Runs all benchmarks for one kind of machine: numbers as JSON, a page, and a comparison with stored numbers.

  python -m benchmarks cpu --out DIR [--baseline benchmarks/results] [--tolerance 0.05]

`cpu` is for two idle cores (about an hour), `gpu` for one GPU, and `small` runs the same programs as `gpu` at sizes
that a CPU does in minutes, to see that they run. Peers need the extra `bench`; where it is missing, stajax is measured
alone. A benchmark that was run into DIR before is not run again.
Exit codes: 0 nothing has dropped, 1 something has, 2 a benchmark failed or the baseline cannot be compared.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import compare, page

SUITES: dict[str, dict[str, str]] = {
  "cpu": {
    "cpu_dense_10s_float32": "dense_inference --rounds 1",
    "cpu_dense_10s_float32_sound": "dense_inference --rounds 1 --sound --peer-maps 4",
    "cpu_st_plus_step": "training_step --network st_plus",
    "cpu_metrics": "metrics",
    "cpu_real_time": "real_time",
    "cpu_input_pipeline": "input_pipeline",
  },
  "gpu": {
    "h200_dense_10s_bf16": "dense_inference --dtype bfloat16 --batch 80 --rounds 5 --peer-maps 16 --peer-batch 8",
    "gpu_dense_10s_bf16_sound": (
      "dense_inference --dtype bfloat16 --batch 80 --rounds 5 --peer-maps 16 --peer-batch 8 --sound"
    ),
    "h200_st_plus_8_256_bf16": "training_step --network st_plus --batch 8 --dtype bfloat16 --steps 10",
    "h200_sta_8_356_bf16": "training_step --network sta --batch 8 --size 356 --dtype bfloat16 --steps 10",
    "h200_sta_plus_8_256_bf16": "training_step --network sta_plus --batch 8 --dtype bfloat16 --steps 10",
    "h200_sa_plus_16_256_bf16": (
      "training_step --network sa_plus --batch 16 --dtype bfloat16 --attention-block 1024 --steps 10"
    ),
  },
  "small": {
    "small_dense": "dense_inference --seconds 1 --size 64 --width 0.125 --rounds 1 --peer-maps 2",
    "small_dense_sound": "dense_inference --seconds 1 --size 64 --width 0.125 --rounds 1 --peer-maps 2 --sound",
    "small_st_plus_step": "training_step --network st_plus --size 64 --width 0.125 --rounds 1",
    "small_sta_step": "training_step --network sta --size 64 --width 0.125 --rounds 1",
    "small_metrics": "metrics --size 90 160 --frames 2 --rounds 1",
  },
}
"""The benchmarks of each kind of machine, by the names of their results."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit code."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("suite", choices=tuple(SUITES))
  parser.add_argument("--out", type=Path, required=True, help="the folder for the numbers and the page")
  parser.add_argument("--baseline", type=Path, help="a folder of such numbers, from the same machine")
  parser.add_argument("--tolerance", type=float, default=0.05, help="the part that a median may drop by (0.05)")
  arguments = parser.parse_args(argv)
  commands = {arguments.out / f"{name}.json": words.split() for name, words in SUITES[arguments.suite].items()}
  failed = [path.stem for path, command in commands.items() if not path.is_file() and not _run(command, path)]
  results = [path for path in commands if path.is_file()]
  _write_page(results, arguments.out / "page.md")
  exit_code = _compare(results, arguments.baseline, arguments.tolerance) if arguments.baseline else 0
  for name in failed:
    print(f"benchmarks: {name} failed; what it said is above", file=sys.stderr)
  return 2 if failed else exit_code


def _run(command: Sequence[str], path: Path) -> bool:
  """Runs one benchmark; returns whether it has written its numbers."""
  module, *options = command
  print(f"\npython -m benchmarks.{' '.join(command)}", flush=True)
  finished = subprocess.run([sys.executable, "-m", f"benchmarks.{module}", *options, "--json", str(path)], check=False)
  return not finished.returncode and path.is_file()


def _write_page(results: Sequence[Path], out: Path) -> None:
  tables = []
  for path in results:
    try:
      tables.append(page.read(path))
    except ValueError:  # the input pipeline prints its own tables
      print(f"benchmarks: {path.name} has no table on the page", file=sys.stderr)
  if tables:
    out.write_text(page.page(tables), encoding="utf-8")


def _compare(results: Sequence[Path], baseline: Path, tolerance: float) -> int:
  """Compares results with those of the same name in a folder; returns the worst exit code."""
  codes = [0]
  for path in results:
    old = baseline / path.name
    if old.is_file():
      print(f"\n{path.stem}:")
      codes.append(compare.main([str(old), str(path), "--tolerance", str(tolerance)]))
    else:
      print(f"\n{path.stem}: {baseline} has no {path.name}")
  return max(codes)


if __name__ == "__main__":
  sys.exit(main())
