"""TensorFlow without its start-up messages and without accelerators, which are reserved for JAX.

Import it as `from stajax.data.tensorflow_cpu import tf`.
"""

from stajax import runtime

runtime.quiet_tensorflow()

import tensorflow as tf  # noqa: E402

__all__ = ["tf"]

for _kind in ("GPU", "TPU"):
  try:
    tf.config.set_visible_devices([], _kind)
  except RuntimeError as _error:  # TensorFlow was used before this module was loaded
    if tf.config.get_visible_devices(_kind):
      raise RuntimeError(f"TensorFlow already holds a {_kind}; load stajax.data before using it") from _error
