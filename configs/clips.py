"""The method on a folder of real clips, on a machine without an accelerator: a frozen VGG-16 and a linear neck.

  stajax prepare csv --table CLIPS.csv --root CLIPS --out DATA --rate 2 --max-seconds 5 --tagger yamnet.tflite
  stajax weights fetch vgg16 --out .
  python -m stajax.train --config configs/clips.py --data.path DATA --init visual=vgg16-397923af.pth \
    --init sound=yamnet.tflite

It is made for some hundred clips. What is trained from scratch is small, and features are computed once. YAMNet says
where a clip's sound belongs to its tags: `configs/tags/clips_yamnet.csv` says which of its classes the tags are. Its
blocks also hear for the networks: from so few clips none learns to hear from nothing.
"""

from typing import Any

from stajax.config import Config, Data, Features, Hearing, Maps, Network, Optimizer, Training

_SIZE = 224  # pixels, for frames and for crops: a crop is a part of the frame, so it is finer at the same size
_TAGS = "configs/tags/clips_yamnet.csv"  # from the folder of the project, where the commands are run

# A network soon knows its clips by heart, and then tells them apart by any detail. A strong decay prevents that, and
# also removes the weights that the network happened to begin with. Steps, rates and decay were chosen by how networks
# do on clips that they have not learned from (`docs/history.md`).
_DECAY, _STUDENT_DECAY = 3.0, 10.0
_MIXED = 0.5  # half of the examples show two clips, so that what is heard matters
_HEARD = ("sound", "sound_map")  # learned from YAMNet once; were they trained further, they would forget it
_HEARING_DECAY = 0.3  # what is heard is in YAMNet's features already; with more decay the map of the sound stays even


def _training(
  steps: int, learning_rate: float = 1e-3, batch: int = 16, decay: float = _DECAY, **changes: Any
) -> Training:
  optimizer = Optimizer(
    name="adam",
    learning_rate=learning_rate,
    weight_decay=decay,
    multipliers=(1.0, 1.0, 1.0, 1.0),
    warmup=min(30, steps // 4),
    schedule="cosine",
  )
  return Training(steps=steps, batch=batch, size=_SIZE, optimizer=optimizer, **changes)


def _after(start: str | tuple[str, ...], steps: int, frozen: tuple[str, ...] = (), **changes: Any) -> Training:
  start = (start,) if isinstance(start, str) else start
  return _training(steps, start=start, frozen=frozen, **changes)


config = Config(
  name="clips",
  data=Data(rate=2.0, balanced=True),
  network=Network(
    backbone="frozen",
    head_norm="batch",
    neck_depth=0,
    audio_encoder="yamnet",
    begin_with_sound=True,
    reasoning_steps=1,
    fine_read_out=True,
  ),
  features=Features(views=3, min_scale=0.6, max_scale=1.6, dtype="packed"),
  hearing=Hearing(kind="yamnet", mapping=_TAGS, teaches=True),
  # A sound may belong to the tag where something else is louder, such as people who talk beside a dog.
  heard_share=0.5,
  s_coarse=_training(400, 3e-3, mixed=_MIXED),
  st_coarse=_after("s_coarse", 150, mixed=_MIXED),
  tagger=_training(600, 3e-3, decay=_HEARING_DECAY, frozen=("sound",)),
  # Only the classifier is trained, for which a high rate is safe. With more foreign sounds it would be off too often.
  switch=_after(("s_coarse", "tagger_0"), 200, ("neck", *_HEARD), learning_rate=0.03, decay=1.0, mixed=0.25),
  sa_coarse=_after(("s_coarse", "tagger_0"), 150, _HEARD, mixed=_MIXED),
  s=_training(400, 3e-3, mixed=_MIXED),
  st=_after("s", 150, mixed=_MIXED),
  sa=_after(("s", "sa_coarse"), 150, _HEARD, mixed=_MIXED),
  plus_crops=True,
  s_plus=_after("s", 60),
  st_plus=_after("st", 60, batch=8),
  sa_plus=_after("sa", 60, _HEARD),
  sta=_after(("st_coarse", "sa_coarse"), 200, _HEARD, batch=8, decay=_STUDENT_DECAY, mixed=_MIXED),
  sta_plus=_after("sta", 100, _HEARD, batch=8, decay=_STUDENT_DECAY, mixed=_MIXED),
  # Nothing is cut from the pseudo-fixations: with so few clips, the highest values show what is peculiar to one.
  # The means are over one frame on either side, which is half a second.
  maps=Maps(size=64, threshold=0.0, reach=1, blur=0.04, time_blur=0.5, centre=True),
  checkpoint_every=100,
  log_every=10,
  inference_batch=8,
)
