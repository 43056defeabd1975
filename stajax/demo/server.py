"""The page's server: takes videos, says how they stand, and gives what was made of them.

  GET    /                                the page, and its parts
  GET    /state                           limits, model, and all videos
  POST   /videos?name=NAME                takes a video, the body of the request
  DELETE /videos/ID                       cancels whatever is done for it, and removes it
  GET    /videos/ID                       what was found
  GET    /videos/ID/maps/VIEW             small maps, uint8
  GET    /videos/ID/original              the video as it came
  POST   /videos/ID/files                 orders a file, see `stajax.demo.files.Order`
  GET    /videos/ID/files/FILE            the file

An error is a JSON object with the field `error`, a sentence for people.
"""

import contextlib
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from importlib import resources
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from stajax.demo.analysis import FINAL, NO_SOUND
from stajax.demo.files import ASPECTS, KINDS, OrderError, read_order
from stajax.demo.guard import Guard
from stajax.demo.limits import Refused
from stajax.demo.store import HeldVideo, Store
from stajax.networks import STUDENTS
from stajax.predict.api import SaliencyModel
from stajax.report.names import METHODS
from stajax.report.overlay import USUAL, palette

PAGE = {"": "index.html", "demo.css": "demo.css", **{name: name for name in ("main.js", "player.js", "maps.js",
        "chart.js", "list.js", "downloads.js", "server.js")}, "icon.svg": "icon.svg"}  # fmt: skip
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_MAX_ORDER = 10_000
"""The bytes of an order."""
_MATROSKA, _MP4 = b"\x1aE\xdf\xa3", b"ftyp"


class Pages:
  """What answers requests.

  Args:
    store: The videos.
    model: What computes their maps.
  """

  def __init__(self, store: Store, model: SaliencyModel) -> None:
    self._store, self._model = store, model
    folder = resources.files("stajax.demo").joinpath("page")
    self._parts = {name: folder.joinpath(file).read_bytes() for name, file in PAGE.items()}
    colours, opacities = palette(USUAL.colormap, 1.0)
    self._colours = [[*colours[3 * at : 3 * at + 3], opacities[at]] for at in range(256)]

  async def part(self, request: Request) -> Response:
    """Gives the page or a part of it."""
    name = request.path_params.get("part", "")
    if name not in PAGE:
      raise HTTPException(404, "There is no such page.")
    return Response(self._parts[name], media_type=_TYPES[Path(PAGE[name]).suffix])

  async def state(self, request: Request) -> Response:
    """Says what the page takes, what the model is, and how all videos stand."""
    names = [name for name in STUDENTS if name in self._model.students]
    views = {name: METHODS[name][0] for name in ((FINAL, *names) if len(names) > 1 else (FINAL,))}
    limits = self._store.limits
    return JSONResponse({
      "limits": vars(limits),
      "model": {"name": self._model.name, "trained_on": self._model.trained_on, "notes": self._model.notes},
      "views": views,
      "no_sound": NO_SOUND,
      "kinds": KINDS,
      "aspects": ASPECTS,
      "opacity": USUAL.opacity,
      "colours": self._colours,
      "videos": [video.fields() for video in self._store.videos()],
    })  # fmt: skip

  async def upload(self, request: Request) -> Response:
    """Takes a video."""
    stated = request.headers.get("content-length", "")
    size = int(stated) if stated.isascii() and stated.isdigit() else None
    await run_in_threadpool(self._store.make_room, size)
    with self._store.place(request.query_params.get("name", "")) as path, path.open("wb") as file:
      async for chunk in request.stream():
        self._store.limits.check_bytes(file.tell() + len(chunk))
        await run_in_threadpool(file.write, chunk)
    return JSONResponse({"videos": [video.fields() for video in self._store.videos()]}, 201)

  async def remove(self, request: Request) -> Response:
    """Cancels whatever is done for a video, and removes it."""
    video = self._video(request)
    await run_in_threadpool(self._store.remove, video.id)
    return Response(status_code=204)

  async def found(self, request: Request) -> Response:
    """Says what was found in a video."""
    video = self._video(request)
    if video.found is None:
      raise HTTPException(409, "This video is not done.")
    return JSONResponse(video.found.fields())

  async def maps(self, request: Request) -> Response:
    """Gives the small maps of a view."""
    video, view = self._video(request), request.path_params["view"]
    if video.found is None or view not in video.found.concentration:
      raise HTTPException(404, "There are no such maps.")
    return FileResponse(video.folder / f"{view}.small", media_type="application/octet-stream")

  async def original(self, request: Request) -> Response:
    """Gives a video as it came, as media and never as anything that a browser would run."""
    video = self._video(request)
    if not video.path.exists():
      raise HTTPException(404, "This video is not there any more.")
    with video.path.open("rb") as file:
      start = file.read(8)
    kind = "video/webm" if start[:4] == _MATROSKA else "video/mp4" if start[4:] == _MP4 else "application/octet-stream"
    return FileResponse(video.path, media_type=kind)

  async def order(self, request: Request) -> Response:
    """Lets a file be made."""
    video = self._video(request)
    if video.found is None:
      raise HTTPException(409, "This video is not done.")
    body = b""
    async for chunk in request.stream():
      body += chunk
      if len(body) > _MAX_ORDER:
        raise HTTPException(413, "An order is shorter.")
    file = self._store.order(video, read_order(body, video.found.concentration))
    return JSONResponse({"id": file.id}, 202)

  async def file(self, request: Request) -> Response:
    """Gives a file that was ordered."""
    video = self._video(request)
    file = video.files.get(request.path_params["file"])
    if file is None or file.path is None or file.job.state != "done":
      raise HTTPException(404, "This file is not there.")
    return FileResponse(file.path, filename=video.name_of(file.path), content_disposition_type="attachment")

  def _video(self, request: Request) -> HeldVideo:
    try:
      return self._store.get(request.path_params["video"])
    except KeyError:
      raise HTTPException(404, "This video is not there any more.") from None


async def _answer(request: Request, error: Exception) -> Response:
  """Answers in words where something cannot be done."""
  if isinstance(error, HTTPException):
    return JSONResponse({"error": error.detail}, error.status_code)
  if isinstance(error, Refused):
    return JSONResponse({"error": str(error)}, 413)
  if isinstance(error, ClientDisconnect):  # somebody closed the page, or cancelled the upload
    return Response(status_code=400)
  return JSONResponse({"error": str(error)}, 400)


def make_application(store: Store, model: SaliencyModel, key: str) -> Guard:
  """Returns the ASGI application.

  Args:
    store: The videos.
    model: What computes their maps.
    key: The first part of every address.
  """
  pages = Pages(store, model)

  @contextlib.asynccontextmanager
  async def lifespan(_: Any) -> AsyncGenerator[None]:
    yield
    await run_in_threadpool(store.close)  # here, since the server ends by the signal that stopped it

  def route(path: str, answer: Callable[[Request], Awaitable[Response]], method: str) -> Route:
    return Route(path, answer, methods=[method])

  routes = [
    route("/", pages.part, "GET"),
    route("/state", pages.state, "GET"),
    route("/videos", pages.upload, "POST"),
    route("/videos/{video}", pages.found, "GET"),
    route("/videos/{video}", pages.remove, "DELETE"),
    route("/videos/{video}/original", pages.original, "GET"),
    route("/videos/{video}/maps/{view}", pages.maps, "GET"),
    route("/videos/{video}/files", pages.order, "POST"),
    route("/videos/{video}/files/{file}", pages.file, "GET"),
    route("/{part}", pages.part, "GET"),
  ]
  handlers = dict.fromkeys((HTTPException, Refused, OrderError, ClientDisconnect), _answer)
  application = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)
  application.router.redirect_slashes = False  # it does not know the key
  return Guard(application, key)


def listen(port: int) -> socket.socket:
  """Returns a socket that takes connections from this machine only.

  Args:
    port: Its port; 0 for any that is free.

  Raises:
    OSError: The port is taken; one line.
  """
  found = socket.socket()
  found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
  try:
    found.bind(("127.0.0.1", port))
    found.listen()
  except OSError as error:
    found.close()
    raise OSError(f"--port {port}: {error.strerror}; another number, or 0 for any free port, may do") from None
  return found


def make_server(application: Guard) -> uvicorn.Server:
  """Returns a quiet server, which ends two seconds after it is told to at the latest."""
  settings: dict[str, Any] = {"log_level": "error", "access_log": False, "timeout_graceful_shutdown": 2}
  return uvicorn.Server(uvicorn.Config(application, server_header=False, lifespan="on", ws="none", **settings))
