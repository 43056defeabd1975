"""The setting of `ave.py` on prepared VGGSound clips. The 309 categories come with the data.

python -m stajax.train --config configs/vggsound.py --data.path DIR
"""

from pathlib import Path

from stajax.config import Config, Training, load

_AVE = load(Path(__file__).with_name("ave.py"))

# The paper does not train on VGGSound. VGGSound has 45 times as many clips as AVE; four times the steps show some ten
# fragments of each clip.
_LENGTH = 4


def _longer(name: str) -> Training:
  training: Training = getattr(_AVE, name)
  return training.model_copy(update={"steps": _LENGTH * training.steps})


_NETWORKS = [name for name, field in Config.model_fields.items() if field.annotation is Training]

config = _AVE.model_copy(
  update={
    "name": "vggsound",
    "data": _AVE.data.model_copy(update={"path": "data/vggsound"}),
    **{name: _longer(name) for name in _NETWORKS},
  }
)
