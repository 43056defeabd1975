"""The settings of the process that must be made before JAX starts; commands call `configure` first."""

import os
from pathlib import Path

# By default this release computes convolutions on a CPU with a library other than its own Eigen kernels, which are 1.4
# times as fast in our training steps. Other releases do not know the flag, and stop at unknown flags.
_CPU_FLAGS = {"0.10.2": "--xla_cpu_experimental_ynn_fusion_type="}


def configure() -> None:
  """Sets XLA's flags for a CPU if the release knows them, keeps compiled programs between runs, and quiets start-up.

  Variables that the user has set in the environment stay as they are.
  """
  import jaxlib.version

  flag = _CPU_FLAGS.get(jaxlib.version.__version__)
  flags = os.environ.get("XLA_FLAGS", "")
  if flag and "ynn" not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache("compiled")))
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")


def cache(name: str) -> Path:
  """Returns a folder in the user's cache, for files that can be made or fetched again."""
  return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "stajax" / name
