"""The console script `stajax VERB …`; each verb is the command `python -m stajax.VERB`."""

import difflib
import importlib
import sys
from collections.abc import Sequence

VERBS = {
  "prepare": "media to records",
  "train": "trains what is not trained yet, ends with the report",
  "predict": "maps, overlay and numbers of videos",
  "evaluate": "scores a model, or maps, on eye-tracking videos",
  "weights": "published weights: downloads and converts them",
  "plan": "what every network of a configuration costs",
}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs a verb; returns its exit code, 2 for an unknown one."""
  argv = list(sys.argv[1:] if argv is None else argv)
  verb = argv[0] if argv else "--help"
  if verb in VERBS:
    return importlib.import_module(f"stajax.{verb}.__main__").main(argv[1:])
  if verb in ("-h", "--help"):
    print(__doc__, *(f"  {name:<9} {what}" for name, what in VERBS.items()), sep="\n")
    return 0
  if verb == "--version":
    import stajax

    print(stajax.__version__)
    return 0
  nearest = difflib.get_close_matches(verb, VERBS, n=1)
  hint = f"did you mean `{nearest[0]}`? " if nearest else ""
  print(f"stajax: unknown verb {verb!r}; {hint}Known: {', '.join(VERBS)}", file=sys.stderr)
  return 2
