"""Finds a model, here or elsewhere, without loading what downloads need unless it is elsewhere."""

from pathlib import Path

from stajax import runtime
from stajax.hints import is_address


def locate(source: str | Path) -> Path:
  """Returns the folder of a model: the one that is named, or a copy in the cache of the one at an address.

  Args:
    source: A folder, or an address as `stajax.weights.remote.fetch_model` takes it.

  Raises:
    FetchError: The address is not possible, or what is there is not a whole model; one line.
  """
  if not is_address(source):
    return Path(source)
  runtime.configure()  # before JAX, which is loaded next
  from stajax.weights.remote import fetch_model

  return fetch_model(str(source))
