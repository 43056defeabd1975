"""Plain values of an untrusted pickle: a small interpreter of the opcodes that hold data, not Python's unpickler.

Nothing named in the pickle is imported or called: a name stands for what the caller lists, any other is refused. Memory
stays within a small multiple of the pickle's length, which the caller limits.
"""

import pickletools
import types
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

_MAX_OPCODES = 1_000_000
_VALUES = {
  *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
  *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
  *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class PickleError(ValueError):
  """A pickle that is damaged, or holds more than plain values; a phrase without the file's name."""


class Ignored:
  """Stands for an object that nobody asks about, such as the arguments of a training."""


def load(stream: BytesIO, allowed: Mapping[str, Any], persistent: Callable[[Any], Any]) -> Any:
  """Reads one pickle from where the stream is, and leaves the stream behind it.

  Args:
    stream: is read as far as the pickle goes; its length bounds what is allocated.
    allowed: what a name such as `collections.OrderedDict` stands for: a function, which the pickle may call with
      arguments, or any other value.
    persistent: what a persistent identifier stands for.

  Returns:
    None, numbers, strings, tuples, lists, dictionaries with strings as keys (other keys as they are written), and what
    `allowed` and `persistent` gave.

  Raises:
    PickleError: damaged, too long, or it asks for anything else; the first such name is told.
  """
  try:
    machine = _Machine(allowed, persistent)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
      if opcode.name == "STOP":
        return machine.stack.pop()
      if count > _MAX_OPCODES:
        raise PickleError(f"its pickle has more than {_MAX_OPCODES} steps")
      machine.step(opcode.name, argument)
  except PickleError:
    raise
  except (ValueError, TypeError, LookupError, OverflowError, AttributeError) as error:
    raise PickleError(f"its pickle is damaged or too long ({type(error).__name__})") from None
  raise PickleError("its pickle has no end")


class _Machine:
  """The stack, the marks in it and the memo of a pickle that is being read."""

  def __init__(self, allowed: Mapping[str, Any], persistent: Callable[[Any], Any]) -> None:
    self.allowed = allowed
    self.persistent = persistent
    self.stack: list[Any] = []
    self.marks: list[int] = []
    self.memo: dict[int, Any] = {}

  def step(self, name: str, argument: Any) -> None:
    stack = self.stack
    if name in _VALUES:
      stack.append(argument)
      return
    if name in _CONSTANTS:
      stack.append(_CONSTANTS[name])
      return
    if name in _EMPTY:
      stack.append(_EMPTY[name]())
      return
    if name in _TUPLES:
      stack.append(tuple(self._last(_TUPLES[name])))
      return
    match name:
      case "PROTO" | "FRAME":
        pass
      case "MARK":
        self.marks.append(len(stack))
      case "POP":
        stack.pop()
      case "POP_MARK":
        self._since_mark()
      case "DUP":
        stack.append(stack[-1])
      case "PUT" | "BINPUT" | "LONG_BINPUT":
        self.memo[argument] = stack[-1]
      case "MEMOIZE":
        self.memo[len(self.memo)] = stack[-1]
      case "GET" | "BINGET" | "LONG_BINGET":
        stack.append(self.memo[argument])
      case "TUPLE":
        stack.append(tuple(self._since_mark()))
      case "LIST":
        stack.append(self._since_mark())
      case "DICT":
        items = self._since_mark()
        stack.append({})
        self._set(items)
      case "APPEND" | "APPENDS":
        items = self._last(1) if name == "APPEND" else self._since_mark()
        _expect(stack[-1], list).extend(items)
      case "SETITEM" | "SETITEMS":
        self._set(self._last(2) if name == "SETITEM" else self._since_mark())
      case "GLOBAL":
        stack.append(self._named(argument.replace(" ", ".", 1)))
      case "STACK_GLOBAL":
        module, attribute = self._last(2)
        stack.append(self._named(f"{_expect(module, str)}.{_expect(attribute, str)}"))
      case "REDUCE" | "NEWOBJ":
        function, arguments = self._last(2)
        stack.append(_expect(function, types.FunctionType)(*_expect(arguments, tuple)))
      case "BUILD":
        # Attributes of a dictionary (PyTorch keeps versions of modules there) or of something ignored.
        self._last(1)
        _expect(stack[-1], dict | Ignored)
      case "BINPERSID":
        stack.append(self.persistent(stack.pop()))
      case "INST":
        self._named(argument.replace(" ", ".", 1))
        raise PickleError("its pickle has the step INST, which is refused")
      case _:
        raise PickleError(f"its pickle has the step {name}, which is refused")

  def _named(self, name: str) -> Any:
    if name not in self.allowed:
      raise PickleError(f"its pickle asks for `{name[:200]}`, which is refused: only tensors and plain values are read")
    return self.allowed[name]

  def _last(self, count: int) -> list[Any]:
    if len(self.stack) < count:
      raise IndexError
    items = self.stack[-count:]
    del self.stack[-count:]
    return items

  def _since_mark(self) -> list[Any]:
    start = self.marks.pop()
    items = self.stack[start:]
    del self.stack[start:]
    return items

  def _set(self, items: list[Any]) -> None:
    target = _expect(self.stack[-1], dict)
    for key, value in zip(items[::2], items[1::2], strict=True):
      target[_key(key)] = value


def _key(key: Any) -> str:
  """A key as a string: hashes of nested tuples may take for ever, those of chosen numbers may collide."""
  if isinstance(key, str):
    return key
  if isinstance(key, int | float | None) and (isinstance(key, float | None) or abs(key) < 2**63):
    return repr(key)
  raise PickleError(f"its pickle has a dictionary with a key of type {type(key).__name__}")


def _expect(value: Any, kind: Any) -> Any:
  if not isinstance(value, kind):
    raise TypeError
  return value
