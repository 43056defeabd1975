"""The training of `quickstart.py` with more held-out clips, whose standard errors show what each part adds.

python -m stajax.train --config configs/synthetic.py --seed 1 --data.synthetic.seed 1
"""

from pathlib import Path

from stajax.config import load

_QUICK = load(Path(__file__).with_name("quickstart.py"))

config = _QUICK.model_copy(
  update={
    "name": "synthetic",
    "data": _QUICK.data.model_copy(update={"synthetic": _QUICK.data.synthetic.model_copy(update={"held_out": 200})}),
  }
)
