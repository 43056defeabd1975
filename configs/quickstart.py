"""The whole method on the embedded synthetic clips, in minutes on two CPU cores, with narrow networks from scratch.

python -m stajax.train --config configs/quickstart.py
"""

from stajax.config import Config, Data, Maps, Network, Optimizer, Synthetic, Training

# From scratch, a network learns with batch normalisation and Adam; the paper's multipliers are for pretrained ones.
# To save time, only the coarse S learns the backbone; the other networks start from it and leave it as it is.
_EVENLY = (1.0, 1.0, 1.0, 1.0)
_SEEN_AND_HEARD = ("visual", "sound")
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
  data=Data(source="synthetic", synthetic=Synthetic(clips=800, held_out=60, size=128, seconds=1.0)),
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
  ),
  s_coarse=_training(360, 3e-3),
  # The new parts of these networks, for motion and for sound, begin without influence (`stajax.weights.store.merge`).
  # Motion may be learned fast. At that rate SA's gate would saturate for every sound, and nothing would bring it back.
  st_coarse=_after("s_coarse", 100, learning_rate=1e-2),
  tagger=_training(100, 3e-3),
  switch=_after(("s_coarse", "tagger_0"), 100, frozen=_SEEN_AND_HEARD, learning_rate=3e-3),
  sa_coarse=_after(("s_coarse", "tagger_0"), 150, frozen=_SEEN_AND_HEARD, learning_rate=3e-3),
  # Objects in a crop are larger than those that the backbone knows. S and SA each learn a backbone for crops, so that
  # their maps differ and there is something to select from.
  s=_after("s_coarse", 110, frozen=(), size=_FINE),
  st=_after(("s", "st_coarse"), 60, size=_FINE),
  sa=_after("sa_coarse", 110, frozen=("sound",), size=_FINE),
  plus_crops=True,
  s_plus=_after("s", 30, 16, learning_rate=1e-3, size=_FINE),
  st_plus=_after("st", 30, 8, learning_rate=1e-3, size=_FINE),
  sa_plus=_after("sa", 30, 16, _SEEN_AND_HEARD, learning_rate=1e-3, size=_FINE),
  sta=_after(("st_coarse", "sa_coarse"), 120, frozen=_SEEN_AND_HEARD),
  sta_plus=_after("sta", 50, 8, _SEEN_AND_HEARD, learning_rate=5e-3, size=_FINE),
  maps=Maps(size=64),
  checkpoint_every=100,
  log_every=10,
  inference_batch=8,
  score_stride=2,
)
