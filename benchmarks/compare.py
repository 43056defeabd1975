"""Compares two results of one benchmark, to see whether stajax has become slower.

  python -m benchmarks.compare OLD.json NEW.json [--tolerance 0.05]

The compared values are relative to something else in the same run, so they also hold on a machine that others use: the
speed relative to a peer, the share of the peak of a matrix product, and, for the input pipeline, the speed relative to
plain decoding. A value has dropped if its median is lower by more than the tolerance and its best round is worse than
the worst one before.
Exit codes: 0 nothing has dropped, 1 something has, 2 the files cannot be compared.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import read

Rounds = dict[str, list[float]]
"""The values of the rounds by what was measured; higher is better."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit code."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("old", type=Path, metavar="OLD.json")
  parser.add_argument("new", type=Path, metavar="NEW.json")
  parser.add_argument("--tolerance", type=float, default=0.05, help="the part that a median may drop by (0.05)")
  arguments = parser.parse_args(argv)
  try:
    old, new = (read(path) for path in (arguments.old, arguments.new))
    before, after = read_rounds(old), read_rounds(new)
    common = [name for name in before if name in after]
    if not common:
      raise ValueError(f"{arguments.old} and {arguments.new}: have nothing in common that could be compared")
  except ValueError as error:
    print(f"benchmarks.compare: {error}", file=sys.stderr)
    return 2
  for kind in ("arguments", "machine", "versions"):
    if old.get(kind) != new.get(kind):
      print(f"note: the {kind} differ: {old.get(kind)}, then {new.get(kind)}")
  dropped = 0
  for name in common:
    has_dropped = is_slower(before[name], after[name], arguments.tolerance)
    medians = [statistics.median(rounds[name]) for rounds in (before, after)]
    change = f"{100 * (medians[1] / medians[0] - 1):+.1f}%"
    print(f"{name}: {medians[0]:.3f}, then {medians[1]:.3f} ({change}){'  SLOWER' if has_dropped else ''}")
    dropped += has_dropped
  print(f"{dropped} of {len(common)} have dropped")
  return 1 if dropped else 0


def is_slower(before: Sequence[float], after: Sequence[float], tolerance: float) -> bool:
  """Return whether the median dropped by more than the tolerance and the rounds do not overlap."""
  return statistics.median(after) < (1 - tolerance) * statistics.median(before) and max(after) < min(before)


def read_rounds(result: Mapping[str, Any]) -> Rounds:
  """Return the values of a result that were measured relative to something else in the same run.

  Raises:
    ValueError: The result is not one of a benchmark.
  """
  try:
    if "cases" in result:  # of the input pipeline
      return {f"{case['stage']} {case['source']} / plain decoding": case["ratios"] for case in result["cases"]}
    found: Rounds = {name: list(ratio["rounds"]) for name, ratio in result["ratios"].items()}
    for name, contestant in result["results"].items():
      if name.startswith("stajax") and "flops" in contestant and "peak" in result:
        peak = result["peak"]["flops"]
        found[f"{name}, share of peak"] = [contestant["flops"] / seconds / peak for seconds in contestant["seconds"]]
    return found
  except (KeyError, TypeError, AttributeError) as error:
    raise ValueError(f"not the result of a benchmark ({type(error).__name__}: {error})") from None


if __name__ == "__main__":
  sys.exit(main())
