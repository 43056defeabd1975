"""Writes down what an exported program takes and gives, so that its inputs can be made without this package."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

import stajax
from stajax.companions import LONG_GAP
from stajax.export.program import ExportedProgram
from stajax.maps.time_blur import REACH
from stajax.media.sound_windows import EARLY_END, SILENT
from stajax.media.spectrogram import EPSILON, FLOOR, HOP, NUM_BINS, SAMPLE_RATE, SEGMENT, WINDOW_COLUMNS
from stajax.model import Model

FORMAT = 1


def describe(
  model: Model, program: ExportedProgram, platforms: Sequence[str], files: Mapping[str, str], name: str
) -> dict[str, Any]:
  """Returns the content of the sidecar, as values for JSON.

  Args:
    model: The model.
    program: Its program.
    platforms: What the program runs on.
    files: The SHA-256 of the other files by their names.
    name: The model's name, for people.
  """
  return {
    "format": FORMAT,
    "made_by": {"stajax": stajax.__version__, "jax": jax.__version__},
    "model": {
      "name": name,
      "trained_on": model.trained_on,
      "students": list(program.students),
      "sha256": {name: model.sha256[name] for name in model.variables if name in model.sha256},
      "categories": list(model.categories),
    },
    "program": _interface(program, platforms),
    "preprocessing": _preprocessing(model, program),
    "postprocessing": _postprocessing(model),
    "files": dict(files),
  }


def _interface(program: ExportedProgram, platforms: Sequence[str]) -> dict[str, Any]:
  inputs = [
    {"name": name, "shape": ["b", *shape], "type": str(dtype)} for name, (shape, dtype) in program.shapes.items()
  ]
  maps = {"name": "maps", "shape": ["b", program.size, program.size], "type": "float32"}
  return {
    "platforms": list(platforms),
    "inputs": inputs,
    "outputs": [maps],
    "call": "jax.export.deserialize(bytearray(content)).call(frames, sound, heard)",
    "fragments": list(program.fragments),
    "text": [
      "b is any number of maps that are computed together; all inputs of a map stand at the same place of b.",
      "frames are RGB; the 3 before the side of the picture are the frames of a fragment: before, middle, after.",
      "heard is 1 where there is sound and 0 elsewhere; where it is 0, sound is ignored and may be zeros.",
      "A map is in [0, 1], and includes the students' fusion, blur within the frame and the factor of the centre.",
    ],
  }


def _preprocessing(model: Model, program: ExportedProgram) -> dict[str, Any]:
  steps: dict[str, Any] = {
    "grid": {
      "rate": model.rate,
      "text": "Grid frame i is the frame shown at i / rate seconds after the first one, for every i up to the end of"
      " the video. Maps at another rate R have neighbours that are r = max(1, round(R / rate)) of their frames apart;"
      " r is 1 on the grid.",
    },
    "frames": {
      "side": program.shapes["frames"][0][-2],
      "text": "Upright full-range RGB, deinterlaced, squashed to side × side pixels whatever the picture's shape:"
      " averaged over areas (FFmpeg's `area`) where it gets smaller, bicubic where it gets larger. The program scales"
      " it further by itself.",
    },
    "fragment": {
      "offsets": [-1, 0, 1],
      "text": "The fragment of frame i has the frames i - r, i, i + r. An index past the ends of a video of n frames is"
      " reflected without repeating the edge: -1 is 1, and n is n - 2; in a video of one frame it is 0.",
    },
    "sound": _sound(),
  }
  if len(program.fragments) > 1:
    steps["companions"] = {
      "short_offsets": [-3, 3],
      "long_gap": LONG_GAP,
      "text": "A group has the fragment of frame i first, then its companions in the order of `fragments`. Short"
      " companions are the fragments of frames i - 3r and i + 3r, reflected. Long companions are the fragments of two"
      " different frames of the video, drawn at random among those that are more than long_gap · r frames from i;"
      " where there are not two, the two other frames that are farthest from i. Each fragment has its own second of"
      " sound and its own heard.",
    }
  return steps


def _sound() -> dict[str, Any]:
  return {
    "sample_rate": SAMPLE_RATE,
    "segment": SEGMENT,
    "hop": HOP,
    "bins": NUM_BINS,
    "columns": WINDOW_COLUMNS,
    "floor": FLOOR,
    "epsilon": EPSILON,
    "silent": SILENT,
    "text": [
      "Mono samples in [-1, 1) of 16 bits at sample_rate, of which the first is at the time of the first frame: a late"
      " start is preceded by zeros, and what is earlier is cut. Where the picture outlasts the sound by more than"
      f" {EARLY_END} s, zeros follow up to its end.",
      "Column j of the spectrogram is of the `segment` samples from hop · j on: their mean is subtracted, they are"
      " multiplied by w, SciPy's Tukey window of shape 0.25 (periodic), and p = |rfft|² / (sample_rate · Σ w²) is"
      " doubled except in the first and the last bin (scipy.signal.spectrogram(x, sample_rate, nperseg=segment,"
      " noverlap=segment - hop)). The spectrogram is ln(p + floor), in float64. It has bins rows.",
      "It is normalised by the mean and the standard deviation over all rows and columns of the whole sound:"
      " (x - mean) / (deviation + epsilon). A sound with a smaller deviation than `silent` counts as none.",
      "The sound of the frame at t seconds is the columns m - columns / 2 … m + columns / 2 - 1, where"
      " m = rint((t · sample_rate - segment / 2) / hop); indices past the ends are reflected as those of frames are.",
    ],
  }


def _postprocessing(model: Model) -> dict[str, Any]:
  maps = model.config.maps
  return {
    "applied": {"blur": maps.blur, "centre": maps.centre},
    "time_blur": {
      "seconds": maps.time_blur,
      "reach": REACH,
      "text": "Where seconds is not 0, each map becomes the mean of the maps around it in time, weighted by a Gaussian"
      " of σ = seconds · rate · r maps, from -⌈reach · σ⌉ to ⌈reach · σ⌉; near the ends of a video the mean is over the"
      " maps that there are.",
    },
    "scale": "Last, each map is divided by its maximum, unless that is 0.",
    "between": "Between two maps in time, each pixel is interpolated linearly; a map covers the whole frame.",
  }
