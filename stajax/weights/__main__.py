"""python -m stajax.weights convert FILE [--out FILE], or fetch NAME [--out DIR]: published weights, for `--init`.

`convert` reads torchvision's VGG-16 and VGGSound's ResNet-18 as PyTorch wrote them (both formats; nothing in them is
executed), npz or safetensors, and writes safetensors that name the source and its SHA-256. `fetch` downloads from the
publisher. Exit codes: 0 done, 2 bad input.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  from stajax import runtime

  runtime.configure()
  from stajax.weights.fetch import PUBLICATIONS, FetchError
  from stajax.weights.store import WeightsError

  parser = argparse.ArgumentParser("stajax weights", description=__doc__, allow_abbrev=False)
  commands = parser.add_subparsers(dest="command", required=True)
  convert = commands.add_parser("convert", help="to safetensors with this package's names", allow_abbrev=False)
  convert.add_argument("file", type=Path, metavar="FILE")
  convert.add_argument("--out", type=Path, metavar="FILE", help="FILE with the suffix .safetensors by default")
  fetch = commands.add_parser("fetch", help="download from the publisher", allow_abbrev=False)
  fetch.add_argument("name", choices=PUBLICATIONS, metavar="NAME", help=", ".join(PUBLICATIONS))
  folder = runtime.cache("weights")
  fetch.add_argument("--out", type=Path, default=folder, metavar="DIR", help=f"{folder} by default")
  arguments = parser.parse_args(argv)
  try:
    if arguments.command == "convert":
      print(convert_file(arguments.file, arguments.out))
    else:
      print(fetch_file(arguments.name, arguments.out))
  except (FetchError, WeightsError) as error:
    print(f"stajax weights: {error}", file=sys.stderr)
    return 2
  return 0


def convert_file(path: Path, out: Path | None = None) -> str:
  """Converts a file; returns a one-line summary.

  Raises:
    WeightsError: it cannot be read, is not known, does not fit, or the result cannot be written.
  """
  from stajax.weights import convert, store

  out = out or path.with_name(path.name.removesuffix(".tar")).with_suffix(".safetensors")
  if out.exists() and out.samefile(path):
    raise store.WeightsError(f"{path}: would be overwritten by what is made of it; expected another --out")
  found = convert.read(path)
  about = {"source": path.name, "sha256": found.sha256, "kind": found.kind}
  try:
    sha256 = store.save(out, store.unflatten(found.arrays), about)
  except OSError as error:
    raise store.WeightsError(f"{out}: cannot be written ({error.strerror})") from None
  parts = sorted({name.split("/")[1] for name in found.arrays})
  counts = f"{len(found.arrays)} arrays of {', '.join(parts)}"
  left_out = f"; left out: {_shorten(found.left_out)}" if found.left_out else ""
  return f"{out}: {counts}, SHA-256 {sha256}; from {found.kind}, SHA-256 {found.sha256}{left_out}"


def fetch_file(name: str, folder: Path) -> str:
  """Downloads what is published under one of our names; returns a one-line summary.

  Raises:
    FetchError: see `stajax.weights.fetch`.
  """
  from stajax.weights.fetch import PUBLICATIONS, fetch

  publication = PUBLICATIONS[name]
  path, sha256 = fetch(publication, folder)
  checked = "as published" if publication.sha256 else "not checked: the publisher tells none"
  part = "visual" if name == "vgg16" else "sound"
  return f"{path}: SHA-256 {sha256}, {checked}; to begin with it: --init {part}={path}"


def _shorten(names: Sequence[str]) -> str:
  """The first names and how many more."""
  more = len(names) - 6
  return ", ".join(names[:6]) + (f" and {more} more" if more > 0 else "")


if __name__ == "__main__":
  sys.exit(main())
