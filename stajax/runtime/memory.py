"""How this process takes memory from the system, and gives it back."""

import ctypes
import os
import sys
from collections.abc import Callable

_MOST_CORES = 8
# The parameters of `mallopt`, which only the header of glibc names.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8
_LARGE = 12 * 2**20
_MOST = 2**31 - 1


def keep_freed_memory() -> None:
  """Lets the process keep what it frees, up to 2 GiB, on Linux with glibc and at most 8 cores; to be called early.

  A training step on a CPU frees buffers of 100 MB and more, and the next one asks for the same. By default they come
  from the system each time, which has to clear every page. Only the main pool of glibc can hold buffers of this size,
  so all threads share it, for which those of many cores would wait. Settings in the environment stay as they are.
  """
  _set_options((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _MOST))


def hold_less_memory() -> None:
  """Lets the process give buffers of 12 MiB and more back when it frees them, where `keep_freed_memory` does something.

  By default glibc keeps buffers of up to 32 MiB for later ones, in pools that most threads have for themselves. What
  lies between the used ones is lost: a tenth of the memory of a prediction. Settings in the environment stay as they
  are.
  """
  _set_options((_ARENA_MAX, 2), (_MMAP_THRESHOLD, _LARGE))


def give_back_freed_memory() -> None:
  """Gives what the process has freed back to the system, on Linux with glibc."""
  trim = _function("malloc_trim")
  if trim is not None:
    trim(ctypes.c_size_t(0))


def _set_options(*options: tuple[int, int]) -> None:
  """Sets parameters of `mallopt` to values, unless the environment sets any or many cores would wait for a pool."""
  is_set = any(name.startswith("MALLOC_") for name in os.environ) or "glibc.malloc" in os.getenv("GLIBC_TUNABLES", "")
  set_option = _function("mallopt")
  if set_option is not None and not is_set and len(os.sched_getaffinity(0)) <= _MOST_CORES:
    for option, value in options:
      set_option(option, value)


def _function(name: str) -> Callable[..., int] | None:
  """Returns a function of the C library; None where that is not glibc."""
  return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
