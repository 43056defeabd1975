"""How a process takes memory from the system, and gives it back: only where the C library is glibc."""

import os
import platform
import subprocess
import sys

import jaxlib.version
import pytest

from stajax import runtime
from stajax.runtime import memory

_ON_GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
_CODE = """
import os, resource, sys, threading
from stajax.runtime import memory
import stajax.train.__main__

def faults():
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def pages():
  return int(open("/proc/self/statm").read().split()[1])

def step():  # as a step does, in a thread that is not the main one
  before = faults()
  buffer = b"x" * 100_000_000
  del buffer
  found.append(faults() - before)

os.sched_getaffinity = lambda _: set(range(int(sys.argv[1])))
memory.keep_freed_memory()
found, start = [], pages()
for _ in range(3):
  thread = threading.Thread(target=step)
  thread.start()
  thread.join()
kept = pages() - start
memory.give_back_freed_memory()
print(found[-1], kept, pages() - start)
"""
_BUFFER = 100_000_000 // os.sysconf("SC_PAGE_SIZE")  # pages


def _run(cores: int, **environment: str) -> list[int]:
  """Returns the page faults of the last of three steps, and the pages that it keeps before and after giving back."""
  clean = {key: x for key, x in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
  command = [sys.executable, "-c", _CODE, str(cores)]
  done = subprocess.run(command, capture_output=True, text=True, check=True, env=clean | environment)
  return [int(number) for number in done.stdout.split()]


@_ON_GLIBC
def test_what_a_step_frees_is_there_for_the_next_one_until_it_is_given_back():
  faults, kept, left = _run(cores=2)
  assert faults < 0.1 * _BUFFER and kept > 0.9 * _BUFFER and left < 0.1 * _BUFFER


@_ON_GLIBC
@pytest.mark.parametrize(
  ("cores", "environment"),
  [(64, {}), (2, {"MALLOC_ARENA_MAX": "4"}), (2, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=4"})],
)
def test_many_cores_and_settings_of_the_user_keep_what_is_usual(cores, environment):
  faults, kept, left = _run(cores, **environment)
  assert faults > 0.9 * _BUFFER and kept < 0.1 * _BUFFER and left < 0.1 * _BUFFER


_LARGE_BUFFERS = """
import sys
from stajax.runtime import memory

def pages():
  return int(open("/proc/self/statm").read().split()[1])

if sys.argv[1] == "less":
  memory.hold_less_memory()
start, kept = pages(), []
for _ in range(3):  # after the first one, glibc takes buffers of this size from its pool
  buffer = b"x" * 25_000_000
  kept.append(b"y" * 100_000)  # lies behind it in the pool
  del buffer
print(pages() - start)
"""


@_ON_GLIBC
@pytest.mark.parametrize(("asked", "is_held"), [("less", False), ("usual", True)])
def test_large_buffers_are_given_back_at_once(asked, is_held):
  clean = {key: x for key, x in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
  command = [sys.executable, "-c", _LARGE_BUFFERS, asked]
  done = subprocess.run(command, capture_output=True, text=True, check=True, env=clean)
  assert (int(done.stdout) > 0.2 * _BUFFER) == is_held


def test_other_c_libraries_are_left_alone(monkeypatch):
  monkeypatch.setattr(memory, "_function", lambda _: None)
  memory.keep_freed_memory()
  memory.hold_less_memory()
  memory.give_back_freed_memory()


@pytest.mark.skipif(jaxlib.version.__version__ not in runtime._CPU_FLAGS, reason="flags of this release are not known")
def test_sums_are_computed_by_the_library_and_convolutions_are_not():
  code = """
from stajax import runtime
runtime.configure()
import jax, jax.numpy as jnp
def statistics(x, kernel):
  y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
  return y, jnp.sum(y, (0, 1, 2))
shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((32, 24, 24, 16), (3, 3, 16, 64))]
print(jax.jit(statistics).lower(*shapes).compile().as_text())
"""
  clean = {key: x for key, x in os.environ.items() if key != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"}
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean)
  in_library = [line for line in done.stdout.splitlines() if "__ynn_fusion" in line or "kind=kCustom" in line]
  assert in_library and all("reduce" in line for line in in_library)
  assert any(" convolution(" in line for line in done.stdout.splitlines())
