"""Downloads and converts published weights, that training can start from (`stajax train --init`).

  stajax weights fetch NAME [--out DIR]
  stajax weights convert FILE [--out FILE]

`fetch` downloads from the publisher. `convert` reads torchvision's VGG-16, EfficientNet-Lite0 and VGGSound's ResNet-18
as PyTorch wrote them (both formats; nothing in them is executed), npz or safetensors, and YAMNet's TFLite file. It
writes safetensors that name the source and its SHA-256. Exit codes: 0 done, 2 bad input.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from stajax import cli, hints, runtime, screen

PROGRAM = "stajax weights"


@dataclass(frozen=True)
class Fetch:
  """Download published weights from their publisher."""

  name: tyro.conf.Positional[str]
  """What to download: vgg16, vggsound-average or vggsound-netvlad."""
  out: Path = field(default_factory=lambda: runtime.cache("weights"))
  """The folder for the file."""

  def run(self) -> str:
    """Downloads the file; returns a one-line summary.

    Raises:
      FetchError: The name is unknown, or the file could not be downloaded; see `stajax.weights.fetch`.
    """
    from stajax.weights.fetch import PUBLICATIONS, FetchError, fetch

    if self.name not in PUBLICATIONS:
      raise FetchError(hints.unknown("name", self.name, PUBLICATIONS))
    publication = PUBLICATIONS[self.name]
    path, sha256 = fetch(publication, self.out)
    checked = "as published" if publication.sha256 else "not checked, because the publisher states none"
    is_cached = self.out == runtime.cache("weights")
    part = "visual" if self.name == "vgg16" else "sound"
    return f"{path}: SHA-256 {sha256}, {checked}; to start from it: --init {part}={self.name if is_cached else path}"


@dataclass(frozen=True)
class Convert:
  """Convert weights to safetensors with this package's names."""

  file: tyro.conf.Positional[Path]
  """The file to convert."""
  out: Path | None = None
  """The file to write: FILE with the suffix .safetensors by default."""

  def run(self) -> str:
    """Converts the file; returns a one-line summary.

    Raises:
      WeightsError: The file cannot be read, is not known, does not fit, or the result cannot be written.
    """
    from stajax.weights import convert, store

    out = self.out or self.file.with_name(self.file.name.removesuffix(".tar")).with_suffix(".safetensors")
    if out.exists() and out.samefile(self.file):
      raise store.WeightsError(f"{self.file}: would be overwritten by its own conversion; expected another --out")
    found = convert.read(self.file)
    about = {"source": self.file.name, "sha256": found.sha256, "kind": found.kind}
    try:
      sha256 = store.save(out, store.unflatten(found.arrays), about)
    except OSError as error:
      raise store.WeightsError(f"{out}: cannot be written ({error.strerror})") from None
    parts = sorted({name.split("/")[1] for name in found.arrays})
    counts = f"{len(found.arrays)} arrays of {', '.join(parts)}"
    left_out = f"; left out: {_shorten(found.left_out)}" if found.left_out else ""
    return f"{out}: {counts}, SHA-256 {sha256}; from {found.kind}, SHA-256 {found.sha256}{left_out}"


Command = Annotated[Fetch, tyro.conf.subcommand("fetch")] | Annotated[Convert, tyro.conf.subcommand("convert")]
_COMMANDS = ("fetch", "convert")


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  argv = list(sys.argv[1:] if argv is None else argv)
  if argv and not argv[0].startswith("-") and argv[0] not in _COMMANDS:
    return cli.fail(PROGRAM, hints.unknown("command", argv[0], _COMMANDS))
  parsed: Any = Command  # tyro takes a union of types, too
  command: Fetch | Convert = cli.parse(PROGRAM, parsed, argv, description=__doc__)
  return cli.run(PROGRAM, lambda: _run(command))


def _run(command: Fetch | Convert) -> int:
  runtime.configure()
  screen.say(command.run())
  return 0


def _shorten(names: Sequence[str]) -> str:
  """Returns the first names, and the number of the others."""
  more = len(names) - 6
  return ", ".join(names[:6]) + (f" and {more} more" if more > 0 else "")


if __name__ == "__main__":
  sys.exit(main())
