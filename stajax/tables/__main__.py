"""Writes the paper's tables from finished trainings, as far as the data at hand allow, and says what is missing.

  stajax tables RUN [RUN …] --data stavis:ROOT … --out DIR [--tags TABLE]

A RUN is a work folder or a model folder; what it stands for follows from its configuration: STANet+ (the paper's AVE),
STANet (`students.learn_from scam`), STANet+♭ (trained on VGGSound), or re-trained (Table 4: on tagged clips of
eye-tracking sets). Tables 1, 3 and the appendix are made from the first run. Scores are kept in DIR/evaluations and
not computed again. It writes `index.html`, `tables.md` and `tables.json`; published numbers are marked as published.
What the data at hand do not allow is named, line by line; that is no failure.
Exit codes: 0 all tables that the data allow are written, 1 some videos could not be scored, 2 bad input.
"""

import sys
from collections.abc import Sequence

from stajax import cli
from stajax.tables.arguments import Arguments

PROGRAM = "stajax tables"


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  arguments = cli.parse(PROGRAM, Arguments, argv, description=__doc__)

  def command() -> int:
    from stajax.tables import make  # loads JAX

    return make.make_tables(arguments)

  return cli.run(PROGRAM, command)


if __name__ == "__main__":
  sys.exit(main())
