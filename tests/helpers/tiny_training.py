"""The configuration of a training that takes seconds, as the text of its file."""

# Programs are small and few of them differ. Not all is frozen that could be, or hearing would not be learned.
CONFIG = """
from stajax.config import Config, Data, Maps, Network, Optimizer, Synthetic, Training

def train(*start, **changes):
  return Training(steps=2, batch=4, size=32, optimizer=Optimizer(learning_rate=1e-2), start=start, **changes)

seen, heard = {"frozen": ("visual",)}, {"frozen": ("visual", "sound")}
config = Config(
  name="tiny",
  init={"visual": "random"},
  data=Data(source="synthetic", synthetic=Synthetic(clips=6, held_out=2, size=32, seconds=1.0)),
  network=Network(
    width=0.125, depths=(1,) * 5, neck_depth=0, audio_width=0.125, audio_pooling="average", reasoning_steps=1
  ),
  s_coarse=train(), st_coarse=train("s_coarse", **seen), tagger=train(),
  switch=train("s_coarse", "tagger_0", **heard), sa_coarse=train("s_coarse", "tagger_0", **heard),
  s=train("s_coarse", **seen), st=train("st_coarse", **seen), sa=train("sa_coarse", **heard),
  s_plus=train("s_coarse", **seen), st_plus=train("st_coarse", **seen), sa_plus=train("sa_coarse", **heard),
  sta=train("st_coarse", "sa_coarse", **heard), sta_plus=train("sta", **heard),
  maps=Maps(size=16), checkpoint_every=1, log_every=1, inference_batch=4, score_stride=4,
)
"""
