"""python -m stajax.plan --config configs/X.py [--categories N] [--json] [overrides such as --st_plus.size 128]

What every network of a configuration costs: its parameters, and the multiply-accumulates of one example (a group of
its fragments) going forward, counted in the program itself. No weights are made and no accelerator is touched.
Exit codes: 0 done, 2 bad input.
"""

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stajax import config as configuration
from stajax.config import Config, ConfigError, Training
from stajax.data.synthetic.categories import CATEGORIES as SYNTHETIC_CATEGORIES

if TYPE_CHECKING:
  from jax.extend import core

AVE_CATEGORIES = 28


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  parser = argparse.ArgumentParser("stajax plan", description=__doc__, add_help=False, allow_abbrev=False)
  parser.add_argument("--config", type=Path)
  parser.add_argument("--categories", type=int)
  parser.add_argument("--json", action="store_true")
  arguments, overrides = parser.parse_known_args(argv)
  if arguments.config is None:
    print(__doc__)
    print("  --categories N   how many tags; those of the configuration's data if not given")
    print("  --json           one JSON object instead of a table")
    return 0 if {"-h", "--help"} & set(overrides) else 2
  try:
    config = configuration.override(configuration.load(arguments.config), overrides)
    num_categories, origin = find_categories(config, arguments.categories)
  except ConfigError as error:
    print(f"stajax plan: {error}", file=sys.stderr)
    return 2
  os.environ["JAX_PLATFORMS"] = "cpu"  # only shapes are computed: accelerators stay free for others
  about = {"config": config.name, "categories": num_categories, "categories_from": origin}
  networks = plan_networks(config, num_categories)
  print(json.dumps({**about, "networks": networks}) if arguments.json else _table(about, networks))
  return 0


def find_categories(config: Config, given: int | None = None) -> tuple[int, str]:
  """The number of categories to plan for, and where it is from.

  Raises:
    ConfigError: not a positive number, or a damaged summary of the prepared data.
  """
  if given is not None:
    if given < 1:
      raise ConfigError(f"--categories {given}: expected at least 1")
    return given, "--categories"
  if config.data.source == "synthetic":
    return len(SYNTHETIC_CATEGORIES), "the synthetic clips"
  path = None if config.data.path is None else Path(config.data.path) / "summary.json"
  if path is None or not path.is_file():
    return AVE_CATEGORIES, "AVE, as no prepared data is at hand; --categories sets another number"
  try:
    categories = json.loads(path.read_text(encoding="utf-8"))["categories"]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ConfigError(f"{path}: not the summary of prepared data ({type(error).__name__}: {error})") from None
  if not isinstance(categories, list) or not categories:
    raise ConfigError(f"{path}: found {categories!r} as `categories`, expected a list of names")
  return len(categories), str(path)


def plan_networks(config: Config, num_categories: int) -> dict[str, dict[str, Any]]:
  """What each network costs, by its field of the configuration (DESIGN: words).

  Returns:
    For each field: "trained", names of the networks that are trained so; "params" of one of them, without running
    statistics; "gmac" and "gflop" of one example forward, by `count_program_macs`; "size", side of its frames in
    pixels, 0 where it sees none; "nodes"; "frames" of all nodes; "inputs", the shapes of one example by name.
  """
  from stajax import model as models

  plans = {}
  skipped = () if config.hearing.kind == "trained" else ("tagger",)
  for field in (name for name, info in Config.model_fields.items() if info.annotation is Training):
    if field in skipped:
      continue
    pattern = re.compile(rf"{field}(_(short|long|cross|\d))?")
    names = [name for name in (*models.TAGGERS, *models.KEPT) if pattern.fullmatch(name)]
    network = models.make_network(names[0], config, num_categories)
    inputs = models.example_inputs(network, getattr(config, field).size)
    plans[field] = {"trained": names, **_plan(network, inputs)}
  return plans


def _plan(network: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
  import jax

  # One trace for shapes and products: initialising multiplies no matrices.
  program, (_, variables) = jax.make_jaxpr(
    lambda inputs: network.init_with_output(jax.random.key(0), **inputs), return_shape=True
  )(inputs)
  macs = count_program_macs(program.jaxpr)
  return {
    "params": sum(math.prod(x.shape) for x in jax.tree.leaves(variables["params"])),
    "gmac": macs / 1e9,
    "gflop": 2 * macs / 1e9,
    "size": inputs["frames"].shape[-2] if "frames" in inputs else 0,
    "nodes": network.num_nodes,
    "frames": network.num_nodes * network.num_times,
    "inputs": {name: list(x.shape[1:]) for name, x in inputs.items()},
  }


def count_macs(function: Callable[..., Any], *arguments: Any) -> int:
  """Multiply-accumulates of a function of arrays, or of their shapes; see `count_program_macs`."""
  import jax

  return count_program_macs(jax.make_jaxpr(function)(*arguments).jaxpr)


def count_program_macs(program: "core.Jaxpr") -> int:
  """Multiply-accumulates of all matrix products and convolutions of a program, as often as they run.

  Attention's products and resizing, which is a product with the interpolation's weights, are among them; elementwise
  arithmetic, pooling and sums are not. Of a condition the dearest branch counts.

  Raises:
    ValueError: a product inside a loop whose number of rounds is not known before it runs.
  """
  from jax.extend import core

  total = 0
  for equation in program.eqns:
    name = equation.primitive.name
    if name == "dot_general":
      total += _product_macs(equation)
    elif name == "conv_general_dilated":
      total += _convolution_macs(equation)
    else:
      inner = [count_program_macs(each) for each in core.jaxprs_in_params(equation.params)]
      if name in ("while", "pallas_call") and any(inner):
        raise ValueError(f"products inside `{name}`, which says nothing about how often they run")
      total += max(inner, default=0) if name == "cond" else sum(inner) * equation.params.get("length", 1)
  return total


def _product_macs(equation: "core.JaxprEqn") -> int:
  """Every element of the result is a sum over the contracted axes."""
  (contracted, _), _ = equation.params["dimension_numbers"]
  left = equation.invars[0].aval.shape
  return math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _convolution_macs(equation: "core.JaxprEqn") -> int:
  """Along every axis each tap of the kernel meets each output or each input, whichever are fewer.

  Outputs are fewer, or as many, where a convolution strides or keeps the size: zeros that pad the image count, since
  hardware multiplies by them and all published counts have them. Inputs are fewer where a transposed convolution
  grows the image: zeros between and around its inputs do not count.
  """
  numbers = equation.params["dimension_numbers"]
  left, kernel = (variable.aval.shape for variable in equation.invars)
  result = equation.outvars[0].aval.shape
  axes = zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True)
  pairs = math.prod(kernel[tap] * min(left[i], result[o]) for i, tap, o in axes)
  batch, features = (result[axis] for axis in numbers.out_spec[:2])
  return batch * features * kernel[numbers.rhs_spec[1]] * pairs  # the kernel's own inputs: of one group only


def _table(about: Mapping[str, Any], networks: Mapping[str, Mapping[str, Any]]) -> str:
  rows = [("network", "trained", "params M", "GMAC", "GFLOP", "size", "nodes", "frames", "inputs of one example")]
  for name, plan in networks.items():
    inputs = ", ".join(f"{key} {'×'.join(map(str, shape))}" for key, shape in plan["inputs"].items())
    numbers = (f"{plan['params'] / 1e6:.2f}", f"{plan['gmac']:.2f}", f"{plan['gflop']:.2f}")
    counts = (str(plan[key]) for key in ("size", "nodes", "frames"))
    rows.append((name, str(len(plan["trained"])), *numbers, *counts, inputs))
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  origin = f"{about['categories']} categories (from {about['categories_from']})"
  lines = [f"{about['config']}: {origin}; one example, forward"]
  for name, *middle, last in rows:
    cells = (cell.rjust(width) for cell, width in zip(middle, widths[1:-1], strict=True))
    lines.append("  ".join((name.ljust(widths[0]), *cells, last)))
  return "\n".join(lines)


if __name__ == "__main__":
  sys.exit(main())
