"""A longer training than `quickstart.py` on the embedded synthetic clips, to see what each part of the method adds.

python -m stajax.train --config configs/synthetic.py --seed 1 --data.synthetic.seed 1
"""

from pathlib import Path

from stajax.config import Training, load

_QUICK = load(Path(__file__).with_name("quickstart.py"))
_STEPS = {
  "s_coarse": 900,
  "st_coarse": 200,
  "tagger": 300,
  "switch": 800,
  "sa_coarse": 450,
  "s": 250,
  "st": 150,
  "sa": 200,
  "s_plus": 100,
  "st_plus": 100,
  "sa_plus": 100,
  "sta": 900,
  "sta_plus": 300,
}


def _longer(name: str, steps: int) -> Training:
  training: Training = getattr(_QUICK, name)
  return training.model_copy(update={"steps": steps})


config = _QUICK.model_copy(
  update={
    "name": "synthetic",
    "data": _QUICK.data.model_copy(update={"synthetic": _QUICK.data.synthetic.model_copy(update={"clips": 2400})}),
    **{name: _longer(name, steps) for name, steps in _STEPS.items()},
  }
)
