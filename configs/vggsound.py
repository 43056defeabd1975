"""The setting of `ave.py` on prepared VGGSound clips; the 309 categories come with the data.

python -m stajax.train --config configs/vggsound.py --data.path DIR
"""

from pathlib import Path

from stajax.config import Config, Training, load

_AVE = load(Path(__file__).with_name("ave.py"))

# Ours, the paper has no such training: with 45 times AVE's clips, four times its steps show each some ten fragments.
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
