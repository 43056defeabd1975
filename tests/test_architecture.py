"""Who may import whom, and what importing loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("data", "nets", "maps", "metrics")


def imports(path: Path) -> set[str]:
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module:
      names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
  return names


@pytest.mark.parametrize("package", PACKAGES)
def test_leaf_packages_do_not_import_each_other(package):
  for path in (ROOT / "stajax" / package).rglob("*.py"):
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("stajax.")}
    assert ours <= {package, "grid", "__version__"}, path


def test_light_imports_load_no_training_libraries():
  code = (
    "import sys, stajax, stajax.predict, stajax.evaluate, stajax.prediction; "
    "print([m for m in ('tensorflow', 'tensorflow_datasets', 'librosa') if m in sys.modules])"
  )
  assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_files_stay_small():
  assert not [path for path in (ROOT / "stajax").rglob("*.py") if len(path.read_text().splitlines()) > 400]
