"""The embedded synthetic clips at more length than `quickstart.py`, to see what each part of the method adds.

  python -m stajax.train --config configs/synthetic.py --seed 1 --data.synthetic.seed 1
"""

from pathlib import Path

from stajax.config import Training, load

_QUICK = load(Path(__file__).with_name("quickstart.py"))
_STEPS = {
  "s_coarse": 1000,
  "st_coarse": 150,
  "tagger": 400,
  "switch": 400,
  "sa_coarse": 250,
  "s": 300,
  "st": 120,
  "sa": 150,
  "s_plus": 100,
  "st_plus": 100,
  "sa_plus": 100,
  "sta": 400,
  "sta_plus": 200,
}


def _longer(name: str, steps: int) -> Training:
  training: Training = getattr(_QUICK, name)
  return training.model_copy(update={"steps": steps})


config = _QUICK.model_copy(
  update={"name": "synthetic", "score_stride": 1, **{name: _longer(name, steps) for name, steps in _STEPS.items()}}
)
