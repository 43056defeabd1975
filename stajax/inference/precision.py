"""Models that compute in another number format than they are configured for, and what they need for 8-bit integers.

Only prediction and export do this: training computes as the configuration says.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# JAX annotates its functions in part.

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from stajax import networks
from stajax.inference import Precision
from stajax.inference.dense import digest_of
from stajax.model import Model, ModelError
from stajax.nets.images import to_size
from stajax.nets.quantised import largest_inputs, quantise_kernel
from stajax.weights import store

_BATCH = 8


def at_precision(model: Model, precision: Precision | None, name: str) -> Model:
  """Returns the model as it computes in a number format.

  Args:
    model: The model.
    precision: The format; None for what the model is configured for.
    name: What a message calls the model.

  Raises:
    ModelError: It shall be int8, but the model has no calibration, or one of another model.
  """
  if precision is None:
    return model
  if precision != "int8":
    network = model.config.network.model_copy(update={"dtype": precision})
    return replace(model, config=model.config.model_copy(update={"network": network}), precision=precision)
  if not model.calibration:
    raise ModelError(
      f"{name}: has no calibration, which int8 needs: `python -m stajax.predict.calibrate MODEL --out DIR` makes one"
    )
  made: dict[tuple[int, float], dict[str, np.ndarray]] = {}  # what networks share stays one array
  variables = {}
  for network, own in model.variables.items():
    prefix = f"{network}/"
    ranges = {path.removeprefix(prefix): x for path, x in model.calibration.items() if path.startswith(prefix)}
    try:
      variables[network] = {**own, "params": _quantise(own["params"], ranges, made)}
    except (KeyError, TypeError) as error:
      raise ModelError(f"{name}: its calibration is of another network than {network} ({error} is not there)") from None
  return replace(model, variables=variables, precision=precision)


def _quantise(
  params: Mapping[str, Any], ranges: Mapping[str, float], made: dict[tuple[int, float], dict[str, np.ndarray]]
) -> dict[str, Any]:
  """Returns a network's parameters with those of some convolutions quantised.

  Args:
    params: The parameters.
    ranges: The largest input of each convolution that is quantised, by its path.
    made: What was quantised before, by the kernel and the largest input; new ones are added.
  """
  flat = store.flatten(params)
  for path, largest in ranges.items():
    kernel, bias = flat.pop(f"{path}/kernel"), flat.pop(f"{path}/bias", None)
    key = id(kernel), largest
    if key not in made:
      made[key] = quantise_kernel(np.asarray(kernel), largest, None if bias is None else np.asarray(bias))
    flat |= {f"{path}/{name}": x for name, x in made[key].items()}
  return store.unflatten(flat)


def calibrate(model: Model, frames: np.ndarray) -> dict[str, float]:
  """Returns the largest input of each convolution that int8 quantises, as it is for some frames.

  Args:
    model: The model.
    frames: (n, S, S, 3) uint8, n a multiple of 8.

  Returns:
    The largest magnitudes, by the names of the network and the convolution: `sta/visual/conv1_1/conv`.
  """
  found: dict[str, float] = {}
  known: dict[tuple[Any, ...], float] = {}
  for name, variables in model.variables.items():
    size = networks.training_of(name, model.config).size
    ranges = _ranges(model, name, frames, size)
    digests = {part: digest_of(variables, parts) for part, parts in _ENCODERS.items()}
    for path, largest in ranges.items():
      # Where networks share an encoder, they must have the same numbers to the last bit, or they would not share it.
      key = (size, digests[path.split("/")[0]], path)
      found[f"{name}/{path}"] = known.setdefault(key, largest)
  return found


_ENCODERS: Mapping[str, Sequence[str]] = {"visual": ("visual",), "neck": ("visual", "neck")}
"""The parts of a network's variables that the inputs of a part depend on."""


def _ranges(model: Model, name: str, frames: np.ndarray, size: int) -> dict[str, float]:
  network = networks.make_network(name, model.config, len(model.categories))
  int8 = networks.make_network(name, model.config, len(model.categories), int8=True)
  parameters = store.flatten(networks.expected_variables(int8, size)["params"])
  wanted = [path.removesuffix("/step") for path in parameters if path.endswith("/step")]

  @jax.jit
  def look(variables: Any, frames: jax.Array) -> dict[str, jax.Array]:
    images = to_size(frames, size)
    # With intermediates the backbone has every layer by itself, also where several are one program otherwise.
    keep = {"method": "encode_frames", "mutable": ["intermediates"]}
    return largest_inputs(lambda: network.apply(variables, images, **keep), wanted)

  variables = jax.device_put(model.variables[name])
  batches: list[dict[str, jax.Array]] = [
    look(variables, frames[at : at + _BATCH]) for at in range(0, len(frames), _BATCH)
  ]
  return {path: max(float(batch[path]) for batch in batches) for path in wanted}
