"""Media to records: python -m stajax.prepare SOURCE --out DIR …

Sources:
  synthetic   rendered clips with known answers; needs nothing else

`python -m stajax.prepare SOURCE --help` lists a source's arguments. Exit code 2: a one-line error on stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import tyro


def synthetic(
  out: Path,
  clips: int = 300,
  heldout: int = 60,
  seed: int = 0,
  size: int = 128,
  rate: float = 8.0,
  seconds: float = 3.0,
  processes: int | None = None,
) -> str:
  """Renders synthetic clips with known answers: DIR/train, DIR/heldout (records) and DIR/heldout_tree (STAViS layout).

  Args:
    out: folder for all three; a finished one is left as it is, an interrupted one is completed.
    clips: number of training clips.
    heldout: number of held-out clips, with ten viewers each.
    seed: of everything; the held-out clips derive another one from it.
    size: side of the frames in pixels.
    rate: frames a second.
    seconds: length of a clip.
    processes: that render; by default one a core.
  """
  from stajax.data.prepare_synthetic import prepare_heldout, prepare_synthetic
  from stajax.data.synthetic import Settings

  settings = Settings(size=size, rate=rate, seconds=seconds)
  processes = processes or os.cpu_count() or 1
  train = prepare_synthetic(out / "train", seed=seed, num_clips=clips, settings=settings, processes=processes)
  held = prepare_heldout(
    out / "heldout", out / "heldout_tree", seed=seed, num_clips=heldout, settings=settings, processes=processes
  )
  return f"{out}: synthetic, train {describe(train)}; held-out {describe(held)}"


SOURCES: dict[str, Callable[..., str]] = {"synthetic": synthetic}


def describe(summary: dict) -> str:
  """What a data set's summary says was kept and why not, in a few words."""
  counts, skipped = summary["counts"], summary["skipped"]
  words = f"{counts['clips']} clips with {counts['frames']} frames, {counts['clips_without_sound']} without sound, "
  words += f"{len(skipped)} skipped"
  return words + (f" (first: {skipped[0]['file']}: {skipped[0]['reason']})" if skipped else "")


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  argv = list(sys.argv[1:] if argv is None else argv)
  if argv[:1] in (["-h"], ["--help"]):
    print(__doc__.strip())
    return 0
  source = argv[0] if argv else ""
  if source not in SOURCES:
    print(f"stajax prepare: source {source!r} is unknown, known sources: {', '.join(SOURCES)}", file=sys.stderr)
    return 2
  try:
    print(tyro.cli(SOURCES[source], args=argv[1:], prog=f"stajax prepare {source}"))
  except (ValueError, OSError) as error:
    print(f"stajax prepare: {error}", file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(main())
