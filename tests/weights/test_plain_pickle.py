"""Tests that PyTorch's pickles are read without executing anything, within bounds of memory and time."""

import contextlib
import io
import pickle
import pickletools
import struct

import pytest

from helpers.torch_files import (
  BASE,
  FORMATS,
  ORDERED,
  Raw,
  Tensor,
  assert_refused,
  encode,
  peak_memory,
  write_legacy,
  write_zip,
)
from stajax.weights import plain_pickle


class Runs:
  """Its pickle runs a command when Python's own unpickler reads it."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    import os

    return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("place", ["zip", "legacy", "alone", "in the state"])
def test_a_pickle_that_would_run_a_command_is_refused(tmp_path, protocol, place):
  ran, path = tmp_path / "ran", tmp_path / "evil.pth"
  evil = pickle.dumps(Runs(ran), protocol)
  pickle.loads(evil)
  assert ran.exists()  # it is not harmless
  ran.unlink()
  match place:
    case "zip":
      write_zip(path, evil, {})
    case "legacy":
      write_legacy(path, evil, {})
    case "alone":
      path.write_bytes(evil)
    case "in the state":
      system = next(arg for op, arg, _ in pickletools.genops(pickle.dumps(Runs(ran), 0)) if op.name == "GLOBAL")
      call = f"c{system.replace(' ', chr(10))}\n".encode() + encode((f"touch {ran}",)) + b"R"
      write_zip(path, {"x": Tensor("0", 12, (12,), (1,)), "y": Raw(call)}, {"0": BASE})
  assert_refused(path, "asks for `posix.system`", "which is refused")
  assert not ran.exists()


@pytest.mark.parametrize(
  ("opcodes", "message"),
  [
    (b"cbuiltins\neval\n(X\x01\x00\x00\x001tR", "`builtins.eval`"),
    (b"c__builtin__\nexec\n)R", "`__builtin__.exec`"),
    (b"(S'true'\nios\nsystem\n", "`os.system`"),  # INST
    (b"(cos\nsystem\nS'true'\no", "`os.system`"),  # OBJ
    (b"\x8c\x02os\x8c\x06system\x93S'true'\n\x85R", "`os.system`"),  # STACK_GLOBAL
    (b"ctorch.storage\n_load_from_bytes\n(C\x01xtR", "`torch.storage._load_from_bytes`"),
    (b"ctorch.nn.modules.linear\nLinear\n)\x81", "`torch.nn.modules.linear.Linear`"),
    (b"ccollections\nOrderedDict.fromkeys\n)R", "`collections.OrderedDict.fromkeys`"),
    (b"\x82\x01", "EXT1"),
    (b"\x97", "NEXT_BUFFER"),
    (b"S'x'\nP1\n", "PERSID"),
    (b"\x8f(K\x01\x90", "EMPTY_SET"),
    (b"\x96\x00\x00\x00\x00\x01\x00\x00\x00", "is damaged"),  # BYTEARRAY8 of 4 GiB
    (b"K\x01)R", "is damaged"),  # calls a number
    (b"ctorch\nFloatStorage\n)R", "is damaged"),  # calls a type
    (b"K\x01}b", "is damaged"),  # attributes of a number
    (ORDERED[:-2] + b"](K\x01e\x85R", "OrderedDict with arguments"),
    (b"ctorch\nSize\n](K\x01e\x85R", "torch.Size"),
  ],
)
@FORMATS
def test_anything_but_data_is_refused(tmp_path, write, opcodes, message):
  write(tmp_path / "x", {"x": Tensor("0", 12, (12,), (1,)), "y": Raw(opcodes)}, {"0": BASE})
  assert_refused(tmp_path / "x", message)


@pytest.mark.parametrize(
  ("opcodes", "message"),
  [
    (b"\x8e" + struct.pack("<Q", 10**12), "is damaged"),  # BINBYTES8
    (b"\x8d" + struct.pack("<Q", 10**12), "is damaged"),  # BINUNICODE8
    (b"\x96" + struct.pack("<Q", 10**12), "is damaged"),  # BYTEARRAY8
    (b"\x8b" + struct.pack("<i", 2**31 - 1), "is damaged"),  # LONG4
    (b"I" + b"9" * 10**6 + b"\n", "is damaged"),  # takes quadratic time
    (b"K\x01r\xff\xff\xff\xff", None),  # a memo of 2^32 entries
    (b"}" * 110_000, "more than 100000 steps"),
    (b"(" * 110_000, "more than 100000 steps"),
    # Doubled 60 times: cheap as long as nobody walks through it.
    (b"N" + b"\x85q\x00h\x00\x86" * 60, None),
    (b"}N" + b"\x85" * 90_000 + b"K\x01s", "key of type tuple"),  # its hash would overflow the stack
    (b"}" + encode(2**80) + b"K\x01s", "key of type int"),
  ],
  ids=["bytes", "text", "bytearray", "number", "digits", "memo", "dicts", "marks", "doubled", "deep key", "large key"],
)
def test_a_pickle_takes_no_more_memory_than_its_length_allows(tmp_path, monkeypatch, opcodes, message):
  monkeypatch.setattr(plain_pickle, "_MAX_OPCODES", 100_000)
  data = b"\x80\x02" + opcodes + b"0N."
  write_zip(tmp_path / "x", data, {})
  assert_refused(tmp_path / "x", message or "found NoneType")

  def attempt():
    with contextlib.suppress(plain_pickle.PickleError):
      plain_pickle.load(io.BytesIO(data), {}, lambda identifier: None)

  assert peak_memory(attempt) < 200 * len(data) + 2**20
