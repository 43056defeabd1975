"""Writes a page of benchmark results, with the machines and versions that they were measured on.

python -m benchmarks.page RESULT.json… --out PAGE.md
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import measure


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code, which is 2 for a file that is not a result."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("results", type=Path, nargs="+")
  parser.add_argument("--out", type=Path, required=True)
  arguments = parser.parse_args(argv)
  try:
    results = [read(path) for path in arguments.results]
  except ValueError as error:
    print(f"benchmarks.page: {error}", file=sys.stderr)
    return 2
  arguments.out.write_text(page(results), encoding="utf-8")
  return 0


def read(path: Path) -> dict[str, Any]:
  """Reads a result that `benchmarks.measure.finish` wrote.

  Raises:
    ValueError: It is not a result; one line that names the file.
  """
  result = measure.read(path)
  try:
    section(result)
    machine(result)
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(f"{path}: not a benchmark's result ({type(error).__name__}: {error})") from None
  return result


def page(results: Sequence[Mapping[str, Any]]) -> str:
  """Returns the page in Markdown: a section for each machine, in the order of the results."""
  lines = [
    "# Benchmarks",
    "",
    "All contestants run in one process, in turn, round after round. Times are medians of the rounds; a ratio is the",
    "median of the rounds' ratios, with the lowest and the highest in brackets. *Of peak* is the share of what a large",
    "matrix product in the same number format reached in the same run. A multiply-accumulate is two FLOPs, counted by",
    "`stajax plan`. `python -m benchmarks.page` made this page; the command of each table is below it.",
  ]
  machines = list(dict.fromkeys(machine(result) for result in results))
  for each in machines:
    lines += ["", f"## {each}"]
    for result in results:
      if machine(result) == each:
        lines += ["", *section(result)]
  return "\n".join(lines) + "\n"


def machine(result: Mapping[str, Any]) -> str:
  """Returns the machine and the versions that a result was measured with."""
  versions = {name: text for name, text in result["versions"].items() if name not in ("commit", "stajax")}
  kind = result["machine"]
  return f"{kind['device']}, {kind['cores']} CPU cores; " + ", ".join(f"{name} {x}" for name, x in versions.items())


def section(result: Mapping[str, Any]) -> list[str]:
  """Returns the table of one result, with its command and its ratios."""
  title = result["title"]
  heads, *rows = measure.table(result)
  used = [column for column, head in enumerate(heads) if not head or any(row[column] for row in rows)]
  out = [f"### {title[0].upper()}{title[1:]}", ""]
  out.append("| " + " | ".join(heads[column] for column in used) + " |")
  out.append("|---" + "|---:" * (len(used) - 1) + "|")
  out += ["| " + " | ".join(row[column] for column in used) + " |" for row in rows]
  commit = result["versions"].get("commit")
  out += ["", f"`{_command(result)}`" + (f" at {commit}" if commit else "")]
  ratios = [
    f"- {name}: **{x['median']:.2f}** times the speed ({min(x['rounds']):.2f} to {max(x['rounds']):.2f})"
    for name, x in result["ratios"].items()
  ]
  return [*out, "", *ratios] if ratios else out


def _command(result: Mapping[str, Any]) -> str:
  """Returns the command that a result is from."""
  words = [f"python -m benchmarks.{result['benchmark']}"]
  for name, value in result["arguments"].items():
    if value is not None and value is not False:
      values = value if isinstance(value, list) else [] if value is True else [value]
      words += [f"--{name.replace('_', '-')}", *map(str, values)]
  return " ".join(words)


if __name__ == "__main__":
  sys.exit(main())
