"""Turns media into records: stajax prepare SOURCE --root DIR --out DIR …

Sources:
  ave         AVE, 28 audio-visual events
  vggsound    VGGSound, 309 classes
  folders     one folder for each tag, with media files in it
  csv         a table of media files and their tags
  stavis      eye-tracking sets in the layout of STAViS
  dhf1k       DHF1K, optionally also as a tree in this layout
  avimos      the set of the NTIRE 2026 challenge, as a tree in this layout
  videos      a folder of videos, with optional tables of fixations, as a tree in this layout
  gaze        exports of eye trackers, as tables of fixations that `videos` reads
  synthetic   rendered clips with known answers; this source needs nothing else

With `--check` the command only lists what is missing, spare or doubtful in a source.
`stajax prepare SOURCE --help` lists a source's arguments. `python -m stajax.prepare` is the same command.
Exit codes: 0 done, 1 some files failed or are missing, 2 bad input, 3 all files failed, 75 after SIGTERM, 130 after
Ctrl-C (the same command goes on). With all but 0 and 1 the command prints the reason as one line on stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tyro

from stajax import cli, hints, screen
from stajax.prepare.listing import NothingUsableError
from stajax.prepare.sources import SOURCES, Source

PROGRAM = "stajax prepare"


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  argv = list(sys.argv[1:] if argv is None else argv)
  if argv[:1] in (["-h"], ["--help"]):
    screen.say(str(__doc__).strip())
    return 0
  if not argv:
    return cli.fail(PROGRAM, f"no source: expected one of {', '.join(SOURCES)} (see `{PROGRAM} --help`)")
  if argv[0] not in SOURCES:
    return cli.fail(PROGRAM, hints.unknown("source", argv[0], SOURCES))
  usage, config = f"{PROGRAM} {argv[0]}", (tyro.conf.OmitArgPrefixes,)

  def command() -> int:
    return _run(cli.parse(PROGRAM, SOURCES[argv[0]], argv[1:], usage=usage, config=config))

  return cli.run(PROGRAM, command)


def _run(arguments: Source) -> int:
  try:
    result = arguments.run()
  except NothingUsableError as error:
    return cli.fail(PROGRAM, error, 3)
  except KeyboardInterrupt:
    return cli.fail(PROGRAM, "interrupted; the same command goes on from here", cli.INTERRUPTED)
  screen.say(result.text)
  return 1 if result.has_failures else 0


if __name__ == "__main__":
  sys.exit(main())
