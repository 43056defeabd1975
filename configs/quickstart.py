"""The whole way on the embedded synthetic clips, in minutes on two CPU cores: narrow networks, trained from scratch.

  python -m stajax.train --config configs/quickstart.py
"""

from stajax.config import Config, Data, Maps, Network, Optimizer, Synthetic, Training

# From scratch a network learns with batch normalisation and Adam; the paper's multipliers are for pretrained backbones.
# S learns the backbone, the others start from it and leave it as it is: there are minutes, not hours.
_EVENLY = (1.0, 1.0, 1.0, 1.0)


def _training(steps: int, learning_rate: float, **changes: object) -> Training:
  optimizer = Optimizer(
    name="adam", learning_rate=learning_rate, weight_decay=1e-3, multipliers=_EVENLY, warmup=30, schedule="cosine"
  )
  return Training(steps=steps, batch=32, size=128, optimizer=optimizer, **changes)


config = Config(
  name="quickstart",
  data=Data(source="synthetic", synthetic=Synthetic(clips=400, held_out=60, size=128, seconds=2.0)),
  # One convolution a stage: a cell of a class map sees 86 of the 128 pixels. VGG-16's would see 252.
  network=Network(
    width=0.25,
    norm="batch",
    depths=(1, 1, 1, 1, 1),
    neck_depth=0,
    audio_width=0.125,
    audio_norm="batch",
    audio_pooling="average",
  ),
  s=_training(400, 3e-3),
  st=_training(240, 3e-3, start=("s",), frozen=("visual",)),
  sa=_training(280, 3e-3, start=("s",), frozen=("visual",)),
  sta=_training(120, 3e-3, start=("st", "sa"), frozen=("visual", "sound")),
  maps=Maps(size=64),
  checkpoint_every=100,
  log_every=10,
  inference_batch=16,
)
