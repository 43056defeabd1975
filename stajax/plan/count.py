"""Counts the multiply-accumulates of programs in JAX's traces, without any device or compiler."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from jax.core import ShapedArray
  from jax.extend import core


def count_macs(function: Callable[..., Any], *arguments: Any, dtype: Any = None) -> int:
  """Returns the multiply-accumulates of a function of arrays, or of their shapes; see `count_program_macs`."""
  import jax

  return count_program_macs(jax.make_jaxpr(function)(*arguments).jaxpr, dtype)


def count_program_macs(program: "core.Jaxpr", dtype: Any = None) -> int:
  """Returns the multiply-accumulates of all matrix products and convolutions of a program, as often as they run.

  Attention's products and resizing, which is a product with the interpolation's weights, are among them; elementwise
  arithmetic, pooling and sums are not. The most expensive branch of a condition counts. Where a program differs between
  platforms, its general branch counts, which is the mathematics without the zeros that fill a TPU's lanes.

  Args:
    program: The program.
    dtype: The type of the factors of the products that count; None for all products.

  Raises:
    ValueError: A product is inside a loop whose number of rounds is not known before it runs.
  """
  from jax.extend import core

  total = 0
  for equation in program.eqns:
    name = equation.primitive.name
    if name in _PRODUCTS:
      total += _PRODUCTS[name](equation) if dtype in (None, _aval(equation.invars[0]).dtype) else 0
    else:
      platforms = equation.params.get("branches_platforms")
      programs = list(core.jaxprs_in_params(equation.params))
      if platforms and None in platforms:
        programs = [programs[platforms.index(None)]]
      inner = [count_program_macs(each, dtype) for each in programs]
      if name in ("while", "pallas_call") and any(inner):
        raise ValueError(f"products inside `{name}`, which says nothing about how often they run")
      total += max(inner, default=0) if name == "cond" else sum(inner) * equation.params.get("length", 1)
  return total


def _product_macs(equation: "core.JaxprEqn") -> int:
  """Returns the size of the result, each element of which is a sum over the contracted axes, times theirs."""
  (contracted, _), _ = equation.params["dimension_numbers"]
  left, result = _shape(equation.invars[0]), _shape(equation.outvars[0])
  return math.prod(result) * math.prod(left[axis] for axis in contracted)


def _convolution_macs(equation: "core.JaxprEqn") -> int:
  """Returns the products of a convolution: along every axis each tap meets each output or input, whichever are fewer.

  Outputs are fewer, or as many, where a convolution strides or keeps the size: zeros that pad the image count, since
  hardware multiplies by them and all published counts have them. Inputs are fewer where a transposed convolution
  grows the image: zeros between and around its inputs do not count.
  """
  numbers = equation.params["dimension_numbers"]
  left, kernel = map(_shape, equation.invars)
  result = _shape(equation.outvars[0])
  axes = zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True)
  pairs = math.prod(kernel[tap] * min(left[i], result[o]) for i, tap, o in axes)
  batch, features = (result[axis] for axis in numbers.out_spec[:2])
  return batch * features * kernel[numbers.rhs_spec[1]] * pairs  # the kernel's own inputs: of one group only


def _shape(variable: "core.Var | core.Literal") -> tuple[int, ...]:
  return _aval(variable).shape


def _aval(variable: "core.Var | core.Literal") -> "ShapedArray":
  from jax.core import ShapedArray

  assert isinstance(variable.aval, ShapedArray)
  return variable.aval


_PRODUCTS = {"dot_general": _product_macs, "conv_general_dilated": _convolution_macs}
