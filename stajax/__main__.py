"""The command `stajax VERB …`, or `python -m stajax VERB …`; `stajax VERB --help` lists the options of a verb."""

import importlib
import sys
from collections.abc import Sequence

VERBS = {
  "prepare": "turns media into records",
  "train": "trains what is not trained yet, and writes the report",
  "predict": "writes maps, an overlay and numbers for videos",
  "evaluate": "scores a model, or maps, on eye-tracking videos",
  "report": "puts several runs beside each other",
  "tables": "writes the paper's tables from finished trainings",
  "weights": "downloads and converts published weights",
  "export": "writes a model as files that run without this package",
  "demo": "opens a page on this machine, to look at videos with their maps",
  "warm-up": "compiles what predict runs, before it is needed",
  "plan": "says what every network of a configuration costs",
}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs a verb; returns its exit code, 2 for an unknown one."""
  try:
    return _run(argv)
  except KeyboardInterrupt:  # while the little is loaded that verbs need to handle it themselves
    print("stajax: interrupted", file=sys.stderr)
    return 130


def _run(argv: Sequence[str] | None) -> int:
  argv = list(sys.argv[1:] if argv is None else argv)
  verb = argv[0] if argv else "--help"
  if verb in VERBS:
    from stajax import cli

    program = f"stajax {verb}"

    def run() -> int:
      with cli.ended_by_interrupts(program):
        module = importlib.import_module(f"stajax.{verb.replace('-', '_')}.__main__")
      return module.main(argv[1:])

    return cli.run(program, run)
  if verb in ("-h", "--help"):
    print(__doc__, *(f"  {name:<9} {what}" for name, what in VERBS.items()), sep="\n")
    return 0
  if verb == "--version":
    import stajax

    print(stajax.__version__)
    return 0
  from stajax import cli, hints

  return cli.fail("stajax", hints.unknown("verb", verb, VERBS))


if __name__ == "__main__":
  sys.exit(main())
