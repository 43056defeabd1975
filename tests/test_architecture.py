"""Who may import whom, what importing loads, and the conventions that a program can check."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.paths import ROOT

FILES = sorted((ROOT / "stajax").rglob("*.py"))

# The rooms of the house from the ground up: folders, and modules at the top level. A room imports only from rooms that
# stand before it. The public face, the package itself, loads lazily whatever it offers.
ROOMS = (
  *("grid", "files", "runtime", "signals", "screen"),
  *("companions", "hints", "config", "cli", "senses", "maps", "nets", "eyetracking"),
  *("media", "scoring", "data", "networks", "report", "weights", "model", "inference"),
  # The wings: training renders embedded clips, planning compiles training steps, the evaluation trains variants, and
  # the paper's tables need all of them.
  *("prepare", "predict", "export", "demo", "warm_up", "train", "plan", "evaluate", "tables"),
  *("__init__", "__main__"),
)
# These rooms are independent of each other, except that records are made of media.
APART = {"media", "data", "nets", "maps", "scoring"}
ALLOWED_APART = {("data", "media")}

MAX_TOP_MODULES = 12
MAX_FUNCTION_LINES = 60

# Libraries, and the only places that import them. A place with `lazily` does so inside a function.
PLACES = {
  "tensorflow": ("data/", "prepare/", "train/logs.py lazily"),
  "tensorflow_datasets": ("data/", "prepare/"),
  "array_record": ("data/", "prepare/"),
  "simplejpeg": ("data/jpeg.py",),
  "librosa": ("media/sound_files.py lazily", "report/plots.py lazily"),
  "soundfile": ("media/sound_files.py lazily",),
  "soxr": ("media/sound_files.py lazily",),
  "av": ("media/", "prepare/"),
  "ai_edge_litert": ("prepare/yamnet.py lazily", "weights/tflite_file.py lazily"),
  "apache_beam": ("runtime/__init__.py lazily",),
  "requests": ("weights/fetch.py",),
  "starlette": ("demo/server.py",),
  "uvicorn": ("demo/server.py",),
  "orbax": ("train/checkpoint.py",),
  "optax": ("train/",),
  "flax": ("nets/", "train/", "weights/", "inference/dense.py", "model.py", "networks.py"),
}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
  """Imported names and whether that happens when the file itself is imported."""
  tree = ast.parse(path.read_text())
  inside = {node for function in ast.walk(tree) if isinstance(function, ast.FunctionDef) for node in ast.walk(function)}
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from ((alias.name, node not in inside) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: relative import"
      for alias in node.names:
        yield f"{node.module}.{alias.name}", node not in inside


def name(path: Path) -> str:
  return path.relative_to(ROOT / "stajax").as_posix()


def room(module: str) -> str:
  """The room of a dotted name such as `stajax.data.records.Records`."""
  found = module.split(".")[1]
  return found if found in ROOMS else "__init__"  # such as `stajax.__version__`


def module_of(path: Path) -> str:
  return ".".join(("stajax", *path.relative_to(ROOT / "stajax").with_suffix("").parts)).removesuffix(".__init__")


def our_imports(path: Path) -> set[str]:
  """The dotted names that a file takes from this package; those that only a type checker reads count too."""
  return {module for module, _ in imports(path) if module.startswith("stajax.")}


def test_every_module_is_in_a_room():
  found = {path.relative_to(ROOT / "stajax").parts[0].removesuffix(".py") for path in FILES}
  assert found == set(ROOMS)
  assert sum(path.parent == ROOT / "stajax" for path in FILES) <= MAX_TOP_MODULES


def test_nothing_imports_upwards():
  wrong = []
  for path in FILES:
    own = path.relative_to(ROOT / "stajax").parts[0].removesuffix(".py")
    for module in our_imports(path):
      used = room(module)
      is_version = module == "stajax.__version__"
      if own != "__init__" and used != own and not is_version and ROOMS.index(used) > ROOMS.index(own):
        wrong.append(f"{name(path)} imports {module}")
      if used != own and {own, used} <= APART and (own, used) not in ALLOWED_APART:
        wrong.append(f"{name(path)} imports {module}, which is to be independent of it")
  assert not wrong


def test_there_are_no_circles():
  modules = {module_of(path) for path in FILES}
  uses = {}
  for path in FILES:
    named = our_imports(path)
    uses[module_of(path)] = {m for x in named for m in (x, x.rpartition(".")[0]) if m in modules and m != "stajax"}
    # Nor its own package, which Python has begun to load anyway and which may offer names of its modules.
    uses[module_of(path)] -= {module_of(path), module_of(path).rpartition(".")[0]}
  state: dict[str, str] = {}

  def visit(module: str, way: tuple[str, ...]) -> None:
    assert state.get(module) != "open", f"a circle: {' -> '.join((*way[way.index(module) :], module))}"
    if module not in state:
      state[module] = "open"
      for used in sorted(uses[module]):
        visit(used, (*way, module))
      state[module] = "closed"

  for module in sorted(modules - {"stajax"}):
    visit(module, ())


@pytest.mark.parametrize("library", PLACES)
def test_libraries_stay_in_their_places(library):
  for path in FILES:
    for module, at_once in imports(path):
      if module.split(".")[0] == library:
        places = [place for place in PLACES[library] if name(path).startswith(place.split()[0])]
        assert places and not (at_once and places[0].endswith("lazily")), f"{path} imports {module}"


def test_leaves_do_without_jax():
  leaves = ("data/", "media/", "prepare/", "maps/", "scoring/", "report/", "grid.py", "companions.py", "config.py")
  jitted = ("scoring/batched.py",)  # a form for accelerators, which nothing else in the leaves imports
  for path in FILES:
    assert not any(module == "stajax.scoring.batched" for module, _ in imports(path)), path
    if name(path).startswith(leaves) and name(path) not in jitted:
      assert not [module for module, _ in imports(path) if module.split(".")[0] in ("jax", "flax", "optax")], path


def test_light_imports_load_no_training_libraries():
  """One child after the other: what evaluation's workers import, then prediction and the Python API."""
  code = """
import sys
def loaded(*modules): return [module for module in modules if module in sys.modules]
training = "tensorflow", "tensorflow_datasets", "array_record", "librosa", "orbax"
import stajax, stajax.cli, stajax.config, stajax.scoring.videos
print(loaded("jax", *training))
import stajax.predict.__main__, stajax.evaluate.__main__, stajax.inference.predictor
print(loaded(*training))
"""
  child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert child.stdout.split("\n")[:2] == ["[]", "[]"]


def test_functions_fit_on_a_screen():
  long = []
  for path in FILES:
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.FunctionDef):
        lines = (node.end_lineno or 0) - node.body[0].lineno + 1
        if lines > MAX_FUNCTION_LINES:
          long.append(f"{name(path)}: {node.name} has {lines} lines")
  assert not long


def test_files_stay_small():
  for path in [*FILES, *(ROOT / "tests").rglob("*.py")]:
    assert len(path.read_text().splitlines()) <= 400, path


def public(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.ClassDef]:
  for node in body:
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
      yield node


def test_public_names_have_docstrings():
  missing = []
  for path in FILES:
    tree = ast.parse(path.read_text())
    if tree.body and not ast.get_docstring(tree):
      missing.append(name(path))
    missing += [f"{name(path)}: {node.name}" for node in public(tree.body) if not ast.get_docstring(node)]
  assert not missing


def test_public_signatures_have_types():
  missing = []
  for path in FILES:
    tree = ast.parse(path.read_text())
    functions = [node for node in public(tree.body) if isinstance(node, ast.FunctionDef)]
    for class_ in public(tree.body):
      if isinstance(class_, ast.ClassDef):
        functions += [node for node in class_.body if isinstance(node, ast.FunctionDef)]
    for function in functions:
      a = function.args
      arguments = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
      typed = all(argument.annotation or argument.arg in ("self", "cls") for argument in arguments)
      if not typed or (function.returns is None and function.name != "__init__"):
        missing.append(f"{name(path)}: {function.name}")
  assert not missing


def test_no_paths_of_one_machine():
  absolute = re.compile(r"(?<![\w.:/}])/(home|root|work|tmp|mnt|media|scratch|Users|opt|var|data)\b|\b[A-Z]:[\\/]\w")
  for path in [*FILES, *(ROOT / "configs").rglob("*.py")]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
      assert not absolute.search(line), f"{path}:{number}: {line}"
