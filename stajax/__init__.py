"""Predicts where people look in videos with sound, learned from category tags instead of eye tracking.

  import stajax

  model = stajax.load("runs/quickstart")       # a model folder, or the work folder of its training
  prediction = model.predict("video.mp4")      # a Prediction: maps (n, h, w), times in seconds, size, has_sound, …
  prediction.save_overlay("overlay.mp4")

  for time, saliency in model.stream("long.mp4"):   # the same maps of a video of any length, one at a time
    ...

  evaluation = stajax.evaluate_maps("maps", "data")   # maps of any program, on a tree of eye-tracking videos
  evaluation.set_scores()["DIEM"]["maps"]["cc"]

`python -m stajax VERB` is the same as the command `stajax VERB`. Importing this package loads nothing else; its names
are loaded when they are first used.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from stajax.evaluate.api import evaluate_maps
  from stajax.predict.api import Prediction, SaliencyModel, load

__version__ = "0.1.0"
__all__ = ["Prediction", "SaliencyModel", "__version__", "evaluate_maps", "load"]

_MODULES = {
  "Prediction": "stajax.predict.api",
  "SaliencyModel": "stajax.predict.api",
  "evaluate_maps": "stajax.evaluate.api",
  "load": "stajax.predict.api",
}


def __getattr__(name: str) -> object:
  if name not in _MODULES:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
  return sorted(__all__)
