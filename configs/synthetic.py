"""The embedded synthetic clips at more length than `quickstart.py`, to see what each part of the method adds.

  python -m stajax.train --config configs/synthetic.py --seed 1 --data.synthetic.seed 1
"""

from pathlib import Path

from stajax.config import Training, load

_QUICK = load(Path(__file__).with_name("quickstart.py"))
_STEPS = {
  "s_coarse": 700,
  "st_coarse": 120,
  "tagger": 300,
  "switch": 300,
  "sa_coarse": 200,
  "s": 250,
  "st": 100,
  "sa": 250,
  "s_plus": 80,
  "st_plus": 80,
  "sa_plus": 80,
  "sta": 300,
  "sta_plus": 200,
}


def _longer(name: str, steps: int) -> Training:
  training: Training = getattr(_QUICK, name)
  return training.model_copy(update={"steps": steps})


config = _QUICK.model_copy(
  update={"name": "synthetic", "score_stride": 2, **{name: _longer(name, steps) for name, steps in _STEPS.items()}}
)
