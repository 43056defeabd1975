"""Programs whose traces are kept on the disk, for the next process.

Where the compiled programs are kept already, most of the start of a prediction is Python that traces them anew. So each
trace is kept beside them, as StableHLO, and with the shapes of its results. What a trace depends on is in its name: the
function, its arguments' shapes, the code, the versions and JAX's settings.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# JAX annotates its functions in part.

import functools
import threading
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jaxlib.version
import numpy as np
from jax import export

from stajax.files import FileError, read_json, write_bytes, write_json
from stajax.files.manifest import sha256_of_bytes, sha256_of_json

Entries = dict[str, jax.Array]
Shapes = tuple[tuple[str, tuple[int, ...], Any], ...]
"""The name, the shape and the number format of each of several arrays."""

_ROOMS = ("nets", "inference")
"""The parts of this package that traces depend on."""
_SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_numpy_dtype_promotion", "jax_softmax_custom_jvp")


class TracedProgram:
  """A function as a program, which is called like it.

  Args:
    function: A function of trees of arrays.
    name: What tells it from all other functions, together with the shapes of its arguments; None to keep no traces.
    donate: Which positional argument's memory the results may take; None for no argument's.
  """

  def __init__(self, function: Callable[..., Any], name: str | None, donate: int | None = None) -> None:
    self._name, self._donate = name, () if donate is None else (donate,)
    self._jitted: Any = jax.jit(function, donate_argnums=self._donate)
    self._loaded: dict[Any, Any] = {}
    self._lock = threading.Lock()  # each device has a thread

  def __call__(self, *arguments: Any, **named: Any) -> Any:
    """Runs the program."""
    return self.jitted(*arguments, **named)(*arguments, **named)

  def jitted(self, *arguments: Any, **named: Any) -> Any:
    """Returns the jitted function that runs for arguments, or `jax.ShapeDtypeStruct`, of these shapes."""
    if self._name is None or _folder() is None:
      return self._jitted
    signature = _signature(arguments, named)
    with self._lock:
      if signature not in self._loaded:
        self._loaded[signature] = self._load(f"{self._name} {_text(signature)}", arguments, named)
    return self._loaded[signature]

  def _load(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Returns the program for arguments of these shapes, from the disk if it is there."""
    path = _path(name, ".stablehlo")
    try:
      digest, content = path.read_bytes().split(b"\n", 1)
      if digest != sha256_of_bytes(content).encode():
        raise ValueError("damaged")
      traced = export.deserialize(bytearray(content))
    except Exception:  # it is missing, or damaged in any way: then it is made
      try:
        traced = export.export(self._jitted)(*arguments, **named)
        content = bytes(traced.serialize())
        content = sha256_of_bytes(content).encode() + b"\n" + content
      except (ValueError, NotImplementedError):  # it has something that only this process can call
        return self._jitted
      _keep(lambda: write_bytes(path, content, shared=True))
    return jax.jit(traced.call, donate_argnums=self._donate)


def shapes_of_results(function: Callable[..., Entries], name: str | None, *arguments: Any, **named: Any) -> Shapes:
  """Returns the shapes that the results of a function have without their first axis.

  Args:
    function: A function of trees of arrays.
    name: See `TracedProgram`.
    *arguments: Its arguments.
    **named: Its other arguments.
  """
  path = None
  if name is not None and _folder() is not None:
    path = _path(f"{name} shapes {_text(_signature(arguments, named))}", ".json")
    try:
      return tuple((str(part), tuple(map(int, shape)), np.dtype(dtype)) for part, shape, dtype in read_json(path))
    except (FileError, ValueError, TypeError):  # it is missing or damaged
      pass
  found = jax.eval_shape(function, *arguments, **named)
  if path is not None:
    known = [(part, x.shape[1:], str(x.dtype)) for part, x in found.items()]
    _keep(lambda: write_json(path, known, shared=True))
  return tuple((part, x.shape[1:], x.dtype) for part, x in found.items())


def _folder() -> Path | None:
  """Returns where traces are kept; None where JAX keeps no compiled programs, or keeps them in a store such as gs://."""
  config: Any = jax.config
  found: str | None = config.jax_compilation_cache_dir
  return Path(found) / "traced" if found and "://" not in found else None


def _path(name: str, suffix: str) -> Path:
  folder = _folder()
  assert folder is not None
  settings = {key: str(getattr(jax.config, key)) for key in _SETTINGS}
  about = {"program": name, "code": _code(), "backend": jax.default_backend(), "settings": settings}
  return folder / f"{sha256_of_json(about)}{suffix}"


def _keep(write: Callable[[], None]) -> None:
  folder = _folder()
  assert folder is not None
  try:
    folder.mkdir(parents=True, exist_ok=True)
    write()
  except OSError:  # it is traced again the next time
    pass


@functools.cache
def _code() -> str:
  """Returns a digest of the code and of the libraries that traces depend on."""
  package = Path(__file__).parents[1]
  files = [path for room in _ROOMS for path in sorted((package / room).rglob("*.py"))]
  versions = f"{jax.__version__} {jaxlib.version.__version__} {metadata.version('flax')}"
  return sha256_of_bytes(versions.encode(), *(path.read_bytes() for path in files))


def _signature(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[Any, tuple[Any, ...]]:
  """Returns the structure of arguments, and the shapes and number formats in it; cheap, since every call asks."""
  leaves, structure = jax.tree.flatten((arguments, dict(named)))
  return structure, tuple((x.shape, x.dtype) for x in leaves)


def _text(signature: tuple[Any, tuple[Any, ...]]) -> str:
  structure, leaves = signature
  return f"{structure} {[f'{dtype}{shape}' for shape, dtype in leaves]}"
