"""Reads published weights under this package's names and in its order of axes.

What a file holds is recognised by its names. PyTorch's convolutions are (out, in, height, width), its linear layers
(out, in); here they are (height, width, in, out) and (in, out). The only vector that is flattened from several axes is
NetVLAD's, with clusters before features in both.
"""

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stajax.files.manifest import sha256_of_file
from stajax.nets.audio import Pooling
from stajax.nets.base import NetworkSizes
from stajax.nets.tagger import Tagger
from stajax.nets.visual import DEPTHS, VGG16
from stajax.weights import efficientnet, yamnet
from stajax.weights.array_files import open_arrays
from stajax.weights.store import Arrays, WeightsError, check_names, flatten

VGGSOUND_CATEGORIES = 309

# The indices of the convolutions in torchvision's `features`, which also counts activations and poolings.
_FEATURES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")  # torchvision's file names
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
# These turn the names of a `stajax.nets.tagger.Tagger` into those of VGGSound's network.
_VGGSOUND_RULES = (
  (r"layer(\d)_(\d)/", r"layer\1.\2."),
  (r"downsample/conv/", "downsample.0."),
  (r"downsample/norm/batch/", "downsample.1."),
  (r"conv(\d)/conv/", r"conv\1."),
  (r"conv(\d)/norm/batch/", r"bn\1."),
  (r"netvlad/conv/", "avgpool.conv."),
  (r"netvlad/", "avgpool."),
)


@dataclass(frozen=True)
class Converted:
  """The arrays of a file under this package's names.

  Attributes:
    arrays: The float32 arrays by names such as `params/visual/conv1_1/conv/kernel`.
    kind: What the file was recognised as.
    left_out: The names in the file that no network here has.
    sha256: The SHA-256 of the file.
  """

  arrays: dict[str, np.ndarray]
  kind: str
  left_out: tuple[str, ...]
  sha256: str


@dataclass(frozen=True)
class _Layout:
  """How one publisher names parameters.

  Attributes:
    anchors: Names by which it is recognised. All names share the prefix of the first, such as `audnet.` or `module.`.
    network: Returns the shapes of our variables.
    source: Returns the name in the file, given one of ours.
    is_torch: Whether axes are in PyTorch's order.
    unused: A pattern of names that no network here needs.
  """

  anchors: tuple[str, ...]
  network: Callable[[], dict[str, tuple[int, ...]]]
  source: Callable[[str], str]
  is_torch: bool = True
  unused: str = r"(?!)"


def read(path: str | Path) -> Converted:
  """Reads VGG-16 of torchvision or as npz, EfficientNet-Lite0, VGGSound's ResNet-18, YAMNet, or our own names.

  Raises:
    WeightsError: The file is unreadable, unknown or damaged, or parameters are missing, spare or of another shape; the
      message names them.
  """
  path = Path(path)
  with open_arrays(path) as arrays:
    sha256 = digest(path)
    if (named := _HASH_IN_NAME.search(path.name)) and not sha256.startswith(named[1]):
      raise WeightsError(f"{path}: damaged, as its SHA-256 is {sha256}, expected {named[1]}… by its name")
    own = [name for name in arrays.shapes if name.startswith(("params/", "batch_stats/"))]
    if own:
      left_out = tuple(sorted(set(arrays.shapes) - set(own)))
      return Converted({name: _float32(path, name, arrays) for name in own}, "stajax", left_out, sha256)
    for reader in _READERS:
      if reader.is_one(arrays.shapes):
        found, others = reader.read(path, arrays, lambda name: _float32(path, name, arrays))
        return Converted(found, reader.KIND, tuple(others), sha256)
    for kind, layout in _LAYOUTS.items():
      if (prefix := _prefix(layout, arrays.shapes)) is not None:
        found, left_out = _rename(path, arrays, kind, layout, prefix)
        return Converted(found, kind, left_out, sha256)
    shown = ", ".join(name[:60] for name in list(arrays.shapes)[:5])
  raise WeightsError(
    f"{path}: found arrays named {shown}, …, expected those of "
    f"{', '.join([*_LAYOUTS, *[reader.KIND for reader in _READERS]])}"
  )


def digest(path: str | Path) -> str:
  """Returns the SHA-256 of a file.

  Raises:
    WeightsError: It cannot be read.
  """
  try:
    return sha256_of_file(path)
  except OSError as error:
    raise WeightsError(f"{path}: {error.strerror}") from None


def _rename(
  path: Path, arrays: Arrays, kind: str, layout: _Layout, prefix: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
  """Returns the arrays of a layout under our names, and the names in the file that no network here needs."""
  wanted, shapes = layout.network(), arrays.shapes
  axes = {target: _axes(target, len(shape), layout.is_torch) for target, shape in wanted.items()}
  source = {target: prefix + layout.source(target) for target in wanted}
  # The shape whose transpose is ours.
  expected = {source[target]: tuple(wanted[target][i] for i in np.argsort(axes[target])) for target in wanted}
  others = [name for name in shapes if name not in expected]
  check_names(
    path,
    [f"missing {name}" for name in expected if name not in shapes],
    [f"spare {name[:80]}" for name in others if not re.fullmatch(re.escape(prefix) + layout.unused, name)],
    [
      f"{name} is {shapes[name]}, expected {shape}"
      for name, shape in expected.items()
      if name in shapes and shapes[name] != shape
    ],
    what=kind,
  )
  found = {target: _float32(path, name, arrays).transpose(axes[target]) for target, name in source.items()}
  return {target: np.ascontiguousarray(x) for target, x in found.items()}, tuple(others)


def _axes(target: str, rank: int, is_torch: bool) -> tuple[int, ...]:
  """Returns how PyTorch's axes of convolutions and linear layers are permuted into ours; others stay as they are."""
  return {4: (2, 3, 1, 0), 2: (1, 0)}[rank] if is_torch and target.endswith("/kernel") else tuple(range(rank))


def _float32(path: Path, name: str, arrays: Arrays) -> np.ndarray:
  with np.errstate(over="ignore"):
    array = np.asarray(arrays.read(name)).astype(np.float32)
  if not np.isfinite(array).all():
    raise WeightsError(f"{path}: {name} has values that are not finite")
  return array


def _prefix(layout: _Layout, names: Mapping[str, object]) -> str | None:
  """Returns the prefix of all names if they have this layout, else None."""
  first = [name.removesuffix(layout.anchors[0]) for name in names if name.endswith(layout.anchors[0])]
  for prefix in first:
    if all(prefix + anchor in names for anchor in layout.anchors):
      return prefix
  return None


def _vgg16() -> dict[str, tuple[int, ...]]:
  shapes = jax.eval_shape(VGG16().init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
  return _shapes({"params": {"visual": shapes["params"]}})


def _vggsound(pooling: Pooling) -> dict[str, tuple[int, ...]]:
  network = Tagger(num_categories=VGGSOUND_CATEGORIES, sizes=NetworkSizes(audio_pooling=pooling))
  return _shapes(jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 1, 257, 98))))


def _shapes(variables: Any) -> dict[str, tuple[int, ...]]:
  return {name: x.shape for name, x in flatten(variables).items()}


def _npz_name(target: str) -> str:
  """Turns `params/visual/conv1_1/conv/bias` into `conv1_1/bias`."""
  _, _, block, _, leaf = target.split("/")
  return f"{block}/{leaf}"


def _torchvision_name(target: str) -> str:
  """Turns `params/visual/conv1_2/conv/bias` into `features.2.bias`."""
  block, leaf = _npz_name(target).split("/")
  blocks = [f"conv{stage}_{conv}" for stage, depth in enumerate(DEPTHS, 1) for conv in range(1, depth + 1)]
  return f"features.{_FEATURES[blocks.index(block)]}.{_LEAVES[leaf]}"


def _vggsound_name(classify: str, target: str) -> str:
  """Turns `params/sound/layer1_0/conv1/norm/batch/scale` into `layer1.0.bn1.weight`; the last layer is `classify`."""
  part, _, rest = target.split("/", 1)[1].partition("/")
  if part == "classify":
    return f"{classify}.{_LEAVES[rest]}"
  for pattern, replacement in _VGGSOUND_RULES:
    rest = re.sub(f"(?<![^.]){pattern}", replacement, rest)
  *blocks, leaf = rest.split(".")
  return ".".join([*blocks, _LEAVES.get(leaf, leaf)])


def _vggsound_layout(pooling: Pooling, anchors: tuple[str, ...], classify: str) -> _Layout:
  return _Layout(
    ("layer1.0.conv1.weight", *anchors),
    functools.partial(_vggsound, pooling),
    functools.partial(_vggsound_name, classify),
    unused=r".*\.num_batches_tracked",
  )


_LAYOUTS = {
  "torchvision's VGG-16": _Layout(
    ("features.0.weight",), _vgg16, _torchvision_name, unused=r"classifier\.[036]\.(weight|bias)"
  ),
  "VGG-16 as npz": _Layout(("conv1_1/kernel",), _vgg16, _npz_name, is_torch=False),
  "VGGSound's ResNet-18 with netvlad pooling": _vggsound_layout("netvlad", ("fc_.bias",), "fc_"),
  "VGGSound's ResNet-18 with average pooling": _vggsound_layout("average", (), "fc"),
}
"""The layouts by what they hold. The first one whose anchors are all there is taken."""
_READERS = (efficientnet, yamnet)
"""The modules that read what more than names and axes sets apart."""
