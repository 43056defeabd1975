"""Networks on whole clips, and what they compute in."""

from typing import Literal

Precision = Literal["float32", "bfloat16", "int8"]
"""The type in which convolutions compute. `int8` is for the backbone and the neck, which encode frames; everything else
then computes as the model is configured."""
