"""What all tests share. JAX sees eight devices on the CPU, and everything else is set as the commands set it."""

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if "jax" in sys.modules:
  raise RuntimeError("JAX was imported before tests/conftest.py, which is too late to set its flags")

_FORCED = "--xla_force_host_platform_device_count=8"
_QUICK = "--xla_backend_optimization_level=0"  # small programs take longer to compile than to run
os.environ["JAX_PLATFORMS"] = "cpu"
for _FLAG in (_FORCED, _QUICK):
  if _FLAG not in os.environ.get("XLA_FLAGS", ""):  # a worker inherits it
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}".strip()
# One folder for all workers of a run and for the next run; the key of an entry covers versions, flags and the program.
_USER = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / f"stajax-tests-{_USER}" / "compiled")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

from helpers.paths import SHARED  # noqa: E402
from stajax import runtime  # noqa: E402

runtime.configure()

_LONGEST_FIRST = ("test_train_command.py", "test_pipeline.py", "test_loop.py", "test_dense.py")


def pytest_configure(config: pytest.Config) -> None:
  """Keeps the order of files among workers; pytest-xdist would begin with the files that have most tests.

  Ctrl-C works also where a shell has started the tests in the background, which makes processes ignore it.
  """
  config.option.loadscopereorder = False
  signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """The files that take longest come first, so that no worker is left alone with one at the end."""
  order = {name: place for place, name in enumerate(_LONGEST_FIRST)}
  items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session")
def shared() -> Path:
  """The folder of sample media and weights beside the repository; nothing in the package needs it."""
  if not SHARED.is_dir():
    pytest.skip("needs the folder `shared` beside the repository")
  return SHARED


@pytest.fixture
def one_device() -> dict[str, str]:
  """The environment of a child process that sees one device, as a user's does."""
  environment = dict(os.environ)
  environment["XLA_FLAGS"] = environment["XLA_FLAGS"].replace(_FORCED, "").strip()
  return environment


@pytest.fixture(scope="session")
def random_variables() -> Callable[..., dict[str, Any]]:
  """`(network, size, seed=0, **inputs)` to NumPy variables of its shapes, without compiling its initialisation."""
  return _random_variables


def _random_variables(network: Any, size: int, seed: int = 0) -> dict[str, Any]:
  from helpers.random_variables import randomise
  from stajax import networks

  return randomise(networks.expected_variables(network, size), seed)
