"""Keeps everybody but the page itself away from the server, which listens on this machine only.

A page of another site may send requests to this machine, and its name may be made to lead here (DNS rebinding). So only
names of this machine are taken as `Host`, and what changes something must come from the page itself. Other people who
use this machine do not know the key, which is part of every address.
"""

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_OWN_NAMES = {"localhost", "127.0.0.1", "[::1]"}
_POLICY = (
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
  "Content-Security-Policy": _POLICY,
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Cache-Control": "no-store",
}


class Guard:
  """An ASGI application that lets through to another one what comes from its own page.

  Args:
    application: The other one, which sees paths without the key.
    key: The first part of every path.
  """

  def __init__(self, application: Application, key: str) -> None:
    self._application, self._key = application, key

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request."""
    if scope["type"] != "http":
      await self._application(scope, receive, send)
      return

    async def send_with_headers(message: MutableMapping[str, Any]) -> None:
      if message["type"] == "http.response.start":
        own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
        message["headers"] = [*message.get("headers", []), *own]
      await send(message)

    refusal = self._refuse(scope)
    if refusal is not None:
      start = {"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]}
      await send_with_headers(start)
      await send_with_headers({"type": "http.response.body", "body": refusal.encode()})
      return
    path = scope["path"].removeprefix(f"/{self._key}")
    if not path:  # the addresses of the page's parts are relative to its own
      location = [(b"location", f"/{self._key}/".encode())]
      await send_with_headers({"type": "http.response.start", "status": 307, "headers": location})
      await send_with_headers({"type": "http.response.body"})
      return
    await self._application({**scope, "path": path, "raw_path": path.encode()}, receive, send_with_headers)

  def _refuse(self, scope: Scope) -> str | None:
    """Returns why a request is not answered; None if it is."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    host = headers.get("host", "")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if name.lower() not in _OWN_NAMES:
      return "This server only answers under the names of this machine, such as 127.0.0.1."
    if headers.get("origin", f"http://{host}") != f"http://{host}":
      return "This request comes from the page of another site."
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
      return "This request comes from the page of another site."
    key = scope["path"].split("/")[1]
    if not secrets.compare_digest(key.encode(), self._key.encode()):
      return "Please open the whole address that `stajax demo` has printed in the terminal."
    return None
