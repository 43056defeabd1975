"""Reads plain values from an untrusted pickle by a small interpreter of the opcodes that hold data.

Nothing named in the pickle is imported or called: a name stands for what the caller lists, and any other is refused.
Memory stays within a small multiple of the pickle's length, which the caller limits.

Python's own unpickler, restricted by `find_class`, does not keep these promises: 12 bytes make its memo take gigabytes,
a deeply nested tuple as a key of a dictionary overflows its stack and ends the process, keys whose hashes collide take
hours, and the state of an object (BUILD) is written into the functions that the caller lists.
"""

import pickletools
import types
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

_MAX_OPCODES = 1_000_000


class PickleError(ValueError):
  """A pickle is damaged, or holds more than plain values. The message is a phrase without the file's name."""


class Ignored:
  """Stands for an object that nobody needs, such as the arguments of a training."""


def load(stream: BytesIO, allowed: Mapping[str, Any], persistent: Callable[[Any], Any]) -> Any:
  """Reads one pickle from the stream's position, and leaves the stream at the pickle's end.

  Args:
    stream: Holds the pickle. Its length bounds what is allocated.
    allowed: What a name such as `collections.OrderedDict` stands for: a function, which the pickle may call with
      arguments, or any other value.
    persistent: Returns what a persistent identifier stands for.

  Returns:
    None, numbers, strings, tuples, lists, dictionaries with strings as keys (other keys as they are written), and what
    `allowed` and `persistent` gave.

  Raises:
    PickleError: The pickle is damaged or too long, or it asks for anything else; the message says for what.
  """
  machine = _Machine(allowed, persistent)
  try:
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
      if opcode.name == "STOP":
        return machine.stack.pop()
      if count > _MAX_OPCODES:
        raise PickleError(f"its pickle has more than {_MAX_OPCODES} steps")
      if opcode.name not in _STEPS:
        raise PickleError(f"its pickle has the step {opcode.name}, which is refused")
      _STEPS[opcode.name](machine, argument)
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

  def push(self, value: Any) -> None:
    self.stack.append(value)

  def take(self, count: int) -> list[Any]:
    """Removes the last items from the stack, and returns them."""
    if len(self.stack) < count:
      raise IndexError
    return self._take_from(len(self.stack) - count)

  def take_since_mark(self) -> list[Any]:
    return self._take_from(self.marks.pop())

  def _take_from(self, start: int) -> list[Any]:
    items = self.stack[start:]
    del self.stack[start:]
    return items

  def remember(self, key: int) -> None:
    self.memo[key] = self.stack[-1]

  def extend_list(self, items: list[Any]) -> None:
    _expect(self.stack[-1], list).extend(items)

  def push_dictionary(self, items: list[Any]) -> None:
    self.push({})
    self.set_items(items)

  def set_items(self, items: list[Any]) -> None:
    """Sets keys and values, which alternate, of the dictionary on the stack."""
    target = _expect(self.stack[-1], dict)
    for key, value in zip(items[::2], items[1::2], strict=True):
      target[_key(key)] = value

  def push_named(self, name: str) -> None:
    if name not in self.allowed:
      raise PickleError(f"its pickle asks for `{name[:200]}`, which is refused: only tensors and plain values are read")
    self.push(self.allowed[name])

  def push_named_on_stack(self) -> None:
    self.push_named(".".join(_expect(part, str) for part in self.take(2)))

  def call(self) -> None:
    function, arguments = self.take(2)
    self.push(_expect(function, types.FunctionType)(*_expect(arguments, tuple)))

  def drop_state(self) -> None:
    """Drops attributes of a dictionary (PyTorch keeps versions of modules there) or of something ignored."""
    self.take(1)
    _expect(self.stack[-1], dict | Ignored)

  def refuse_instance(self, name: str) -> None:
    """Refuses to make an instance of a class; the message names a class that is not allowed."""
    self.push_named(name)
    raise PickleError("its pickle has the step INST, which is refused")


_VALUES = (
  *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
  *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
  *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
)
_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
  **dict.fromkeys(_VALUES, _Machine.push),
  **dict.fromkeys(("PROTO", "FRAME"), lambda machine, _: None),
  "NONE": lambda machine, _: machine.push(None),
  "NEWTRUE": lambda machine, _: machine.push(True),
  "NEWFALSE": lambda machine, _: machine.push(False),
  "EMPTY_TUPLE": lambda machine, _: machine.push(()),
  "EMPTY_LIST": lambda machine, _: machine.push([]),
  "EMPTY_DICT": lambda machine, _: machine.push({}),
  "TUPLE": lambda machine, _: machine.push(tuple(machine.take_since_mark())),
  "TUPLE1": lambda machine, _: machine.push(tuple(machine.take(1))),
  "TUPLE2": lambda machine, _: machine.push(tuple(machine.take(2))),
  "TUPLE3": lambda machine, _: machine.push(tuple(machine.take(3))),
  "LIST": lambda machine, _: machine.push(machine.take_since_mark()),
  "DICT": lambda machine, _: machine.push_dictionary(machine.take_since_mark()),
  "APPEND": lambda machine, _: machine.extend_list(machine.take(1)),
  "APPENDS": lambda machine, _: machine.extend_list(machine.take_since_mark()),
  "SETITEM": lambda machine, _: machine.set_items(machine.take(2)),
  "SETITEMS": lambda machine, _: machine.set_items(machine.take_since_mark()),
  "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
  "POP": lambda machine, _: machine.stack.pop(),
  "POP_MARK": lambda machine, _: machine.take_since_mark(),
  "DUP": lambda machine, _: machine.push(machine.stack[-1]),
  **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.remember),
  "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
  **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, key: machine.push(machine.memo[key])),
  "GLOBAL": lambda machine, name: machine.push_named(name.replace(" ", ".", 1)),
  "STACK_GLOBAL": lambda machine, _: machine.push_named_on_stack(),
  "INST": lambda machine, name: machine.refuse_instance(name.replace(" ", ".", 1)),
  **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda machine, _: machine.call()),
  "BUILD": lambda machine, _: machine.drop_state(),
  "BINPERSID": lambda machine, _: machine.push(machine.persistent(machine.stack.pop())),
}
"""What each opcode does, by its name in `pickletools`; all others are refused."""


def _key(key: Any) -> str:
  """Returns a key as a string: hashing nested tuples may take forever, and chosen numbers may collide."""
  if isinstance(key, str):
    return key
  if isinstance(key, int | float | None) and (isinstance(key, float | None) or abs(key) < 2**63):
    return repr(key)
  raise PickleError(f"its pickle has a dictionary with a key of type {type(key).__name__}")


def _expect(value: Any, kind: Any) -> Any:
  if not isinstance(value, kind):
    raise TypeError
  return value
