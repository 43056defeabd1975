"""Decoding in other processes, for prediction: what a file does to a decoder costs that file, never the batch.

The functions are those of `stajax.media.video`, `stajax.media.audio` and `stajax.media.keyframes`, and give the same. A
child that crashes, takes more memory than it may, or gives nothing for too long raises MediaError with the reason.
Where processes cannot be forked, as on Windows, decoding stays in this process.
"""

import atexit
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stajax.media import decoder_server as server
from stajax.media import times
from stajax.media.file import DEFAULT, Decoding, MediaError
from stajax.media.sound_files import check_libraries
from stajax.media.video import MediaInfo
from stajax.runtime import hidden_interrupts

SILENCE = 600.0  # seconds without an item after which a child counts as hanging
MEMORY = 2**32  # bytes by which a child may grow
HARDWARE_MEMORY = 2**46  # likewise, with a device: its driver reserves addresses for far more than it uses

IS_POSSIBLE = hasattr(os, "fork") and hasattr(socket, "send_fds")


class DecoderError(MediaError):
  """A decoder crashed, hung or took too much memory."""


class _Server:
  """The server process, started at the first request."""

  def __init__(self) -> None:
    ours, theirs = socket.socketpair()
    code = f"import sys; sys.path[:] = {sys.path!r}; from stajax.media.decoder_server import main; main()"
    # Threads of NumPy would make forks unsafe, and decoding does not use them.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with theirs, hidden_interrupts():
      self.process = subprocess.Popen([sys.executable, "-c", code], stdin=theirs.fileno(), env=environment)
    self.control, self.lock, self.owner = ours, threading.Lock(), os.getpid()

  def start(self, request: tuple[Any, ...]) -> tuple[int, socket.socket]:
    """Returns a new child, and the connection to it."""
    ours, theirs = socket.socketpair()
    with theirs, self.lock:
      socket.send_fds(self.control, [pickle.dumps(("start", *request))], [theirs.fileno()])
      return server.receive_number(self.control), ours

  def wait(self, child: int) -> int:
    """Returns the exit code of a child that has ended or is about to; that of a signal is negative."""
    with self.lock:
      self.control.sendall(pickle.dumps(("wait", child)))
      return server.receive_number(self.control)

  def close(self) -> None:
    """Ends the server, which waits for nothing."""
    self.control.close()


_current: _Server | None = None
_guard = threading.Lock()


def start() -> None:
  """Starts the server, which takes half a second, while something else is loaded."""
  if IS_POSSIBLE:
    _server()


def _server() -> _Server:
  global _current
  with _guard:
    if _current is None or _current.owner != os.getpid() or _current.process.poll() is not None:
      _current = _Server()
    return _current


@atexit.register
def _close() -> None:
  if _current is not None and _current.owner == os.getpid():
    _current.close()


def _iterate(
  name: str, path: Path, notes: list[str] | None, decoding: Decoding, *arguments: Any, patience: float | None = None
) -> Iterator[Any]:
  """Yields what a function of the server yields in a child, which counts as hanging after `patience` seconds."""
  if not IS_POSSIBLE:
    yield from server.FUNCTIONS[name](path, [] if notes is None else notes, decoding, *arguments)
    return
  try:
    current = _server()
    clock, folder = times.known(path, decoding), os.getcwd()
    memory = MEMORY if decoding.hardware is None else HARDWARE_MEMORY
    child, connection = current.start((name, path, decoding, clock, memory, folder, arguments))
  except (OSError, EOFError) as error:
    raise OSError(f"the process that decodes media cannot start or has ended ({error or 'it ended'})") from error
  patience = SILENCE if patience is None else min(SILENCE, patience)
  connection.settimeout(patience)
  last: Any = None
  is_hanging = False
  try:
    while True:
      kind, value = server.receive(connection)
      if kind == "end":
        return
      if kind == "notes":
        if notes is not None:
          notes.extend(value)
      elif kind == "error":
        raise MediaError(value)
      elif kind == "memory":
        raise DecoderError(f"{path}: decoding needed more than {MEMORY / 2**30:g} GiB of memory")
      else:
        item = (*value, last) if kind == "same" else value
        last = item[-1] if isinstance(item, tuple) else None
        yield item
  except TimeoutError:
    is_hanging = True
    raise DecoderError(f"{path}: the decoder gave nothing for {patience:g} s") from None
  except (EOFError, ConnectionError):
    raise DecoderError(f"{path}: {_describe(current.wait(child))}") from None
  finally:
    if is_hanging:
      os.kill(child, signal.SIGKILL)
    connection.close()


def _describe(code: int) -> str:
  if code == -signal.SIGKILL:
    return "the decoder was killed, which systems do when they run out of memory"
  return f"the decoder crashed ({f'signal {-code}' if code < 0 else f'exit code {code}'})"


def probe(path: str | Path, notes: list[str], decoding: Decoding = DEFAULT) -> MediaInfo:
  """Returns the properties of a file as `stajax.media.video.probe` does; sound whose decoder crashes counts as none."""
  path = Path(path)
  (found,) = _iterate("probe", path, notes, decoding)
  info, clock = found
  times.remember(path, decoding, clock)
  try:
    (has_sound,) = _iterate("has_sound", path, notes, decoding)
  except DecoderError as error:
    notes.append(about_sound(error, path))
    has_sound = False
  return replace(info, has_sound=has_sound)


def why_missing(hardware: str) -> str:
  """Returns why this machine cannot decode by a kind of hardware, on one line; "" if it can."""
  (reason,) = _iterate("why_missing", Path(), None, Decoding(hardware=hardware))
  return reason


def about_sound(error: MediaError, path: Path) -> str:
  """Returns a note about sound that cannot be used, though the picture can."""
  return f"sound: {str(error).removeprefix(f'{path}: ')}"


def native_frames(
  path: str | Path,
  size: tuple[int, int] | None = None,
  notes: list[str] | None = None,
  decoding: Decoding = DEFAULT,
) -> Iterator[tuple[float, np.ndarray]]:
  """Yields every frame with its time, as displayed or squashed to (height, width)."""
  return _iterate("native_frames", Path(path), notes, decoding, size)


def grid_frames(
  path: str | Path, rate: float, side: int, notes: list[str] | None = None, decoding: Decoding = DEFAULT
) -> Iterator[tuple[float, np.ndarray]]:
  """Yields the frames of a constant grid with their times."""
  return _iterate("grid_frames", Path(path), notes, decoding, rate, side)


def grid_frames_and_times(
  path: str | Path, rate: float, side: int, notes: list[str] | None = None, decoding: Decoding = DEFAULT
) -> Iterator[tuple[tuple[float, ...], float, np.ndarray | None]]:
  """Yields the frames of a constant grid with their times, and the times of all frames that were passed."""
  return _iterate("grid_frames_and_times", Path(path), notes, decoding, rate, side)


def frame_times(path: str | Path, decoding: Decoding = DEFAULT) -> Iterator[float]:
  """Yields the times of `native_frames` alone."""
  return _iterate("frame_times", Path(path), None, decoding)


def audio_blocks(
  path: str | Path, notes: list[str] | None = None, decoding: Decoding = DEFAULT, patience: float | None = None
) -> Iterator[np.ndarray]:
  """Yields the sound in blocks, as mono at 16 kHz."""
  return _iterate("audio_blocks", Path(path), notes, decoding, patience=patience)


def sound_file_blocks(
  path: str | Path, notes: list[str] | None = None, decoding: Decoding = DEFAULT, patience: float | None = None
) -> Iterator[np.ndarray]:
  """Yields the sound of a file without a picture, as `stajax.media.sound_files.sound_file_blocks` does."""
  path = Path(path)
  check_libraries(path)
  return _iterate("sound_file_blocks", path, notes, decoding, patience=patience)


def sampled_runs(
  path: str | Path, count: int, spacing: float, side: int, seed: int, decoding: Decoding = DEFAULT
) -> list[tuple[float, list[np.ndarray]]]:
  """Returns short runs of frames from all over a video."""
  return list(_iterate("sampled_runs", Path(path), None, decoding, count, spacing, side, seed))


def grey_frames(path: Path, decoding: Decoding = DEFAULT) -> Iterator[np.ndarray]:
  """Yields the frames of a grey video, as `stajax.media.grey_video.grey_frames` does."""
  return _iterate("grey_frames", path, None, decoding)


def add_sound(picture: Path, info: MediaInfo, target: Path, notes: list[str]) -> Iterator[float]:
  """Writes a video with the sound of the original; see `stajax.media.video_sound.add_sound`."""
  return _iterate("add_sound", info.path, notes, info.decoding, picture, info, target)
