"""The whole method on the embedded synthetic clips, in minutes on two CPU cores, with narrow networks from scratch.

python -m stajax.train --config configs/quickstart.py
"""

from stajax.config import Config, Data, Maps, Network, Optimizer, Synthetic, Training

# From scratch, a network learns with batch normalisation and Adam; the paper's multipliers are for pretrained ones.
# To save time, only the coarse S learns the backbone; the other networks start from it and leave it as it is.
_EVENLY = (1.0, 1.0, 1.0, 1.0)
# The taggers teach the map of the sound which category each channel is about. Were it trained further, its gate would
# saturate, and nothing would bring it back.
_HEARD = ("sound", "sound_map")
_BRANCH = ("visual", "neck", "classify", "bias")
_COARSE, _FINE = 96, 128  # pixels; the paper's 256 and 356 have the same ratio


def _training(steps: int, learning_rate: float, batch: int = 32, size: int = _COARSE, **changes: object) -> Training:
  optimizer = Optimizer(
    name="adam",
    learning_rate=learning_rate,
    weight_decay=1e-3,
    multipliers=_EVENLY,
    warmup=min(30, steps // 4),
    schedule="cosine",
  )
  return Training(steps=steps, batch=batch, size=size, optimizer=optimizer, **changes)


def _after(
  start: str | tuple[str, ...],
  steps: int,
  batch: int = 32,
  frozen: tuple[str, ...] = ("visual",),
  learning_rate: float = 2e-3,
  size: int = _COARSE,
) -> Training:
  start = (start,) if isinstance(start, str) else start
  return _training(steps, learning_rate, batch, size, start=start, frozen=frozen)


config = Config(
  name="quickstart",
  data=Data(source="synthetic", synthetic=Synthetic(clips=1600, held_out=60, size=128, seconds=1.0)),
  # With one convolution in each stage, a cell of a class map sees 86 of the 128 pixels. With those of VGG-16 it would
  # see 252.
  network=Network(
    width=0.25,
    norm="batch",
    depths=(1, 1, 1, 1, 1),
    neck_depth=0,
    audio_width=0.125,
    audio_norm="batch",
    audio_pooling="average",
    reasoning_steps=1,
    fine_read_out=True,
  ),
  # The rate is as high as it can be: at lower ones the networks remember the training clips, and then need no ears.
  s_coarse=_training(600, 1.5e-2),
  st_coarse=_after("s_coarse", 120, learning_rate=1e-2),
  heard_share=0.5,  # four of the ten tags have their sound in common with another
  tagger=_training(240, 3e-3),
  # Only the classifier is trained, and not far: with a factor for each category it would remember the training clips.
  switch=_after(("s_coarse", "tagger_0"), 150, frozen=("visual", "neck", *_HEARD), learning_rate=1e-2),
  sa_coarse=_after(("s_coarse", "tagger_0"), 300, frozen=("visual", *_HEARD), learning_rate=1e-2),
  # Objects in a crop are larger than those that the backbone knows. S and SA each learn a backbone for crops, so that
  # their maps differ and there is something to select from.
  s=_after("s_coarse", 200, frozen=(), learning_rate=8e-3, size=_FINE),
  st=_after(("s", "st_coarse"), 60, size=_FINE),
  sa=_after(("s", "sa_coarse"), 110, frozen=_HEARD, learning_rate=4e-3, size=_FINE),
  plus_crops=True,
  # Only the reasoning is trained: the maps that it begins with would become worse in these few steps.
  s_plus=_after("s", 60, 16, _BRANCH, learning_rate=4e-3, size=_FINE),
  st_plus=_after("st", 60, 8, (*_BRANCH, "temporal"), learning_rate=4e-3, size=_FINE),
  sa_plus=_after("sa", 60, 16, (*_BRANCH, *_HEARD), learning_rate=4e-3, size=_FINE),
  sta=_after(("st_coarse", "sa_coarse"), 600, frozen=("visual", *_HEARD), learning_rate=1e-2),
  sta_plus=_after("sta", 150, 8, ("visual", *_HEARD), learning_rate=4e-3),
  maps=Maps(size=64),
  checkpoint_every=100,
  log_every=10,
  inference_batch=8,
  score_stride=2,
)
