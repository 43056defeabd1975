"""Tests of the names that the package offers, and of what importing it loads."""

import subprocess
import sys

import pytest

import stajax
from helpers.paths import ROOT


def test_names_are_loaded_when_they_are_used():
  assert set(stajax.__all__) <= set(dir(stajax))
  for name in stajax.__all__:
    assert getattr(stajax, name) is not None
  with pytest.raises(AttributeError, match="'stajax' has no attribute 'laod'"):
    stajax.laod  # noqa: B018
  assert stajax.load.__module__ == "stajax.predict.api"


@pytest.mark.parametrize("code", ["import stajax", "from stajax import __main__; __main__.main(['--help'])"])
def test_importing_the_package_loads_no_library(code):
  code += "; import sys; print(*{name.split('.')[0] for name in sys.modules})"
  child = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
  loaded = set(child.stdout.splitlines()[-1].split())
  assert loaded <= {*sys.stdlib_module_names, "__main__", "stajax"}
