"""Opens a page on this machine, which shows videos with their maps.

  stajax demo [--model DIR] [--port NUMBER]

It prints an address. On the page, videos are dropped; it shows them with the maps over them, with and without their
sound, and has everything for download that `stajax predict` writes. Nothing leaves this machine, and nothing stays on
it: Ctrl-C ends the page and removes its files. It needs the extra `demo`: pip install 'stajax[demo]'.
Exit codes: 0 ended by Ctrl-C or SIGTERM, 2 bad input, 75 and 130 if these come while the model is loaded.
"""

import contextlib
import secrets
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from stajax import cli, screen
from stajax.media import isolated
from stajax.predict.api import load

PROGRAM = "stajax demo"


@dataclass(frozen=True)
class Arguments:
  """The options of `stajax demo`."""

  model: str | None = None
  """A trained model's folder, the work folder of its training, or the address of a model, https://… or hf://owner/name;
  by default the model that the package comes with."""
  port: int = 8350
  """The port of the page on this machine; 0 for any that is free."""
  max_megabytes: float = 500.0
  """A larger video is refused."""
  max_seconds: float = 120.0
  """A longer video is refused."""
  keep: int = 20
  """How many videos the page holds; after that, the oldest is removed when another one comes."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return cli.run(PROGRAM, lambda: _demo(cli.parse(PROGRAM, Arguments, argv, description=__doc__)), extra="demo")


def _demo(arguments: Arguments) -> int:
  _check(arguments)
  from stajax.demo.limits import UploadLimits
  from stajax.demo.server import listen, make_application, make_server
  from stajax.demo.store import Store, temporary_folder

  limits = UploadLimits(round(arguments.max_megabytes * 1e6), arguments.max_seconds, arguments.keep)
  with listen(arguments.port) as socket, temporary_folder() as folder:
    isolated.start()  # beside JAX and the model
    with cli.ended_by_interrupts(PROGRAM):
      model = load(arguments.model)
    key = secrets.token_urlsafe(16)
    server = make_server(make_application(Store(model, folder, limits), model, key))
    for note in model.notes:
      screen.say(f"note: {note}")
    screen.say(f"http://127.0.0.1:{socket.getsockname()[1]}/{key}/\nOpen this address in a browser. Ctrl-C ends it.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the server passes its signals on when it has ended
    with contextlib.suppress(KeyboardInterrupt):
      server.run([socket])
  return 0


def _check(arguments: Arguments) -> None:
  if not 0 <= arguments.port < 2**16:
    raise ValueError(f"--port {arguments.port}: expected 0 to 65535")
  for option, value in (("--max-megabytes", arguments.max_megabytes), ("--max-seconds", arguments.max_seconds)):
    if not 0 < value < 1e6:
      raise ValueError(f"{option} {value:g}: expected more than 0 and less than a million")
  if not 1 <= arguments.keep <= 1000:
    raise ValueError(f"--keep {arguments.keep}: expected 1 to 1000")


if __name__ == "__main__":
  sys.exit(main())
