"""The process in which prediction decodes media: a server that makes a child of itself for each request.

A decoder may crash, hang, or ask for any amount of memory, and must not take the process with the model along. The
server loads what decoding needs once, so that a child costs milliseconds and one server is enough for many videos.
`stajax.media.isolated` starts it and talks to it; each child writes to a socket of its own, and waits while nobody
reads, so that little is decoded ahead. Children end with the process that asked them.
"""

import contextlib
import gc
import os
import pickle
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stajax.media import hardware, keyframes, sound_files, times, video, video_sound
from stajax.media.audio import audio_blocks
from stajax.media.file import Decoding, MediaError
from stajax.media.grey_video import grey_frames
from stajax.runtime import limit_memory

REQUEST_BYTES = 2**16
_HEADER = struct.Struct("<QI")  # the length of the pickled item, and the number of its arrays
_LENGTH = struct.Struct("<Q")
_CODE = struct.Struct("<q")

Message = tuple[str, Any]
"""What a child sends: its kind (`item`, `same`, `notes`, `error`, `memory`, `end`) and what belongs to it."""


def _probe(path: Path, notes: list[str], decoding: Decoding) -> Iterator[Any]:
  yield video.probe_picture(path, decoding), times.file_clock(path, decoding)


def _has_sound(path: Path, notes: list[str], decoding: Decoding) -> Iterator[Any]:
  yield video.has_sound(path, decoding)


FUNCTIONS: dict[str, Callable[..., Iterator[Any]]] = {
  "probe": _probe,
  "has_sound": _has_sound,
  "native_frames": lambda path, notes, decoding, size: video.native_frames(path, size, notes, decoding),
  "grid_frames": lambda path, notes, decoding, rate, side: video.grid_frames(path, rate, side, notes, decoding),
  "grid_frames_and_times": lambda path, notes, decoding, rate, side: video.grid_frames_and_times(
    path, rate, side, notes, decoding
  ),
  "frame_times": lambda path, notes, decoding: video.frame_times(path, decoding),
  "audio_blocks": audio_blocks,
  "sound_file_blocks": sound_files.sound_file_blocks,
  "grey_frames": grey_frames,
  "sampled_runs": lambda path, notes, decoding, *settings: iter(
    keyframes.sampled_runs(path, *settings, decoding=decoding)
  ),
  "why_missing": lambda path, notes, decoding: iter([hardware.why_missing(decoding.hardware or "")]),
  "add_sound": lambda path, notes, decoding, *files: video_sound.add_sound(*files, notes=notes),
}
"""What children can be asked for. Each takes a file, a list that receives notes, and the limits; it yields items."""


def main() -> None:
  """Answers requests on standard input, a socket, until it is closed or the process that asks has ended."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process with the model decides when work ends
  gc.freeze()
  with contextlib.suppress(ConnectionError):  # it may end between a request and the answer
    _serve(socket.socket(fileno=os.dup(0)))


def _serve(control: socket.socket) -> None:
  codes = dict[int, int]()
  while True:
    request, descriptors, _, _ = socket.recv_fds(control, REQUEST_BYTES, 1)
    if not request:
      return
    kind, *arguments = pickle.loads(request)
    if kind == "wait":
      child = arguments[0]
      control.sendall(_CODE.pack(codes.pop(child) if child in codes else _wait(child, 0)[1]))
      continue
    while (ended := _wait(-1, os.WNOHANG))[0]:
      codes[ended[0]] = ended[1]
    if arguments[0] == "sound_file_blocks":
      sound_files.load_libraries(arguments[1])
    child = os.fork()
    if child == 0:
      control.close()
      _answer(socket.socket(fileno=descriptors[0]), *arguments)
      os._exit(0)
    os.close(descriptors[0])
    control.sendall(_CODE.pack(child))


def _wait(child: int, options: int) -> tuple[int, int]:
  """Returns the process id of a child that has ended, 0 if there is none, and its exit code."""
  try:
    found, status = os.waitpid(child, options)
  except ChildProcessError:
    return 0, 0
  return found, os.waitstatus_to_exitcode(status) if found else 0


def _answer(
  connection: socket.socket,
  name: str,
  path: Path,
  decoding: Decoding,
  clock: times.FileClock | None,
  memory: int,
  folder: str,
  arguments: tuple[Any, ...],
) -> None:
  """Runs one function, and sends what it yields."""
  os.dup2(os.open(os.devnull, os.O_RDWR), 0)
  os.dup2(0, 2)  # where the C library would write about a crash
  threading.Thread(target=_end_with_reader, args=(connection,), daemon=True).start()
  limit_memory(memory)
  os.chdir(folder)  # the process that asks may have left the one in which the server was started
  if clock is not None:
    times.remember(path, decoding, clock)
  notes: list[str] = []
  last: Any = None
  try:
    for item in FUNCTIONS[name](path, notes, decoding, *arguments):
      is_same = isinstance(item, tuple) and last is not None and item[-1] is last
      send(connection, ("same", item[:-1]) if is_same else ("item", item))
      last = item[-1] if isinstance(item, tuple) else None
    send(connection, ("notes", notes))
    send(connection, ("end", None))
  except _NobodyReads:
    return
  except MemoryError:
    send(connection, ("memory", None))
  except MediaError as error:
    send(connection, ("notes", notes))
    send(connection, ("error", str(error)))
  except Exception as error:  # whatever a library raises at a damaged file
    send(connection, ("notes", notes))
    send(connection, ("error", f"{path}: cannot be decoded ({' '.join(str(error).split()) or type(error).__name__})"))


def _end_with_reader(connection: socket.socket) -> None:
  """Ends this process when the one that asked closes the connection, or ends."""
  try:
    while connection.recv(1):
      pass
  except OSError:
    pass
  os._exit(1)


class _NobodyReads(Exception):
  """The process that asked has closed the connection."""


def send(connection: socket.socket, message: Message) -> None:
  """Sends a message; arrays are sent as they lie in memory."""
  arrays: list[pickle.PickleBuffer] = []
  content = pickle.dumps(message, protocol=5, buffer_callback=arrays.append)
  try:
    connection.sendall(_HEADER.pack(len(content), len(arrays)) + content)
    for array in arrays:
      with array.raw() as raw:
        connection.sendall(_LENGTH.pack(raw.nbytes))
        connection.sendall(raw)
  except OSError as error:
    raise _NobodyReads from error


def receive(connection: socket.socket) -> Message:
  """Returns the next message.

  Raises:
    EOFError: The child has ended.
    TimeoutError: The child sent nothing for as long as the connection waits.
  """
  length, count = _HEADER.unpack(receive_bytes(connection, _HEADER.size))
  content = receive_bytes(connection, length)
  arrays = [receive_bytes(connection, _LENGTH.unpack(receive_bytes(connection, _LENGTH.size))[0]) for _ in range(count)]
  return pickle.loads(content, buffers=arrays)


def receive_number(connection: socket.socket) -> int:
  """Returns a process id or an exit code."""
  return _CODE.unpack(receive_bytes(connection, _CODE.size))[0]


def receive_bytes(connection: socket.socket, length: int) -> bytearray:
  """Returns so many bytes. Raises EOFError if the other side has ended."""
  content = bytearray(length)
  view = memoryview(content)
  while view:
    received = connection.recv_into(view)
    if not received:
      raise EOFError
    view = view[received:]
  return content
