"""The setting of `ave.py` on prepared VGGSound clips: the paper's STANet+♭ (§6.3.2).

The 309 categories come with the data.

  stajax prepare vggsound --root VGGSound --out data/vggsound
  python -m stajax.train --config configs/vggsound.py --data.path data/vggsound \
    --init visual=vgg16-397923af.pth --init sound=I.pth.tar

The files of weights are those of `ave.py`.
"""

from pathlib import Path

from stajax.config import Config, Training, load

_AVE = load(Path(__file__).with_name("ave.py"))

# The paper trains on VGGSound too, and gives no lengths. VGGSound has 45 times as many clips as AVE; four times the
# steps show some ten fragments of each clip.
_LENGTH = 4


def _longer(name: str) -> Training:
  training: Training = getattr(_AVE, name)
  return training.model_copy(update={"steps": _LENGTH * training.steps})


_NETWORKS = [name for name, field in Config.model_fields.items() if field.annotation is Training]

config = _AVE.model_copy(
  update={
    "name": "vggsound",
    "data": _AVE.data.model_copy(update={"path": "data/vggsound", "expected_categories": 309}),
    **{name: _longer(name) for name in _NETWORKS},
  }
)
