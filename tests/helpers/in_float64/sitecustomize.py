"""Lets JAX compute in float64 in place of float32, to tell rounding from faults.

  PYTHONPATH=tests/helpers/in_float64:tests stajax train …

Python imports this file at its start. What is read from records stays float32, and the log rounds losses to it.
"""

import os

os.environ["JAX_ENABLE_X64"] = "1"

import jax.numpy as jnp

jnp.float32 = jnp.float64  # before Flax and stajax take it as the default of their layers
