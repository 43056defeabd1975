"""Titles of methods, metrics, stages and sets for pages and tables, and a description of each method."""

import re

from stajax.maps.final import NO_CENTRE
from stajax.report.table_1 import ROWS
from stajax.scoring.protocol import FURTHER, METRICS, metric_of
from stajax.senses import OWN, split_method

PSEUDO_FIXATION = "pseudo_fixation"
"""What students learn from: SCAM+ (or SCAM) smoothed in time, with weak values cut."""

METHODS = {
  "centre": ("Centre", "Baseline: one Gaussian in the middle of every frame, whatever it shows."),
  "spectral_residual": (
    "Spectral residual",
    "Baseline: what is unusual in the frame's spectrum (Hou and Zhang, 2007). It needs no training.",
  ),
  "feature_distance": (
    "Feature distance",
    "Baseline: how far each position's conv5_3 feature of an ImageNet network is from the frame's mean feature, times "
    "the centre Gaussian. It needs no training beyond ImageNet's.",
  ),
  "centre_learned": (
    "Centre, learned",
    "Baseline: where viewers of the other videos of the set look, the same map for all frames of a video.",
  ),
  "inter_observer": (
    "Inter-observer",
    "How well viewers predict each other: a map of all other viewers' fixations, scored by each viewer's in turn. "
    "SIM and CC compare densities, which a single fixation has not.",
  ),
  "uniform": ("Uniform", "Baseline: a constant map, for which most metrics are not defined by most protocols."),
  "cam_s_coarse": (
    "CAM S, coarse",
    "The class activation map of the clip's tag on the whole frame, by the classifier that sees one frame (S).",
  ),
  "cam_st_coarse": ("CAM ST, coarse", "The same by the classifier that sees three frames, so motion as well (ST)."),
  "cam_sa_coarse": (
    "CAM SA, coarse",
    "The same by the classifier that sees one frame and, where the audio switch is on, hears its second of sound (SA).",
  ),
  "scam_coarse": (
    "SCAM, coarse",
    "The confidence-weighted mean of the coarse CAMs of those classifiers that find the clip's tag. The fine stage "
    "looks closer at the box around it.",
  ),
  "cam_s": ("CAM S", "The fine stage of S: it is trained again on crops, and its map is put back into the frame."),
  "cam_st": ("CAM ST", "The fine stage of ST."),
  "cam_sa": ("CAM SA", "The fine stage of SA."),
  "scam_average": ("AC", "The plain mean of the three fine CAMs, with which selective fusion is compared."),
  "scam": (
    "SCAM",
    "The confidence-weighted mean of the fine CAMs of those classifiers that find the clip's tag.",
  ),
  "scam_plus": (
    "SCAM+",
    "The same over the three fine CAMs and those of S+, ST+ and SA+, which compare a frame with its neighbours "
    "(short), other moments of the clip (long) and other clips of its tag (cross). The students learn from it.",
  ),
  PSEUDO_FIXATION: (
    "Pseudo-fixation",
    "What the students learn from: that map smoothed in time, with weak values cut.",
  ),
  "sta": ("STA", "The student: it learned from pseudo-fixations, sees and hears the clip, and needs no tag."),
  "sta_plus_short": ("STA+ short", "The student that reasons over three successive moments."),
  "sta_plus_long": ("STA+ long", "The student that reasons over a moment and two distant ones of the clip."),
  "final": ("Final", "All three students fused: what `stajax predict` writes."),
  "final_no_switch": ("Final, no switch", "The same with the audio switch forced to 1, so that all sound is heard."),
  "maps": ("Maps", "The maps that were given."),
}
"""The title and a description of each method."""

SETS = {
  "synthetic/foreign": "clips whose sound is foreign to the tag",
  "synthetic/own_sound": "clips whose sound is not foreign",
  "synthetic/rivals/own_sound": "clips with silent objects of other categories, whose sound is not foreign",
  "synthetic/repeat": "clips whose object repeats or leaves",
  "synthetic/rivals": "clips in which silent objects of other categories are seen, too",
  "synthetic/no_rivals": "clips in which the tagged object is the only one of any category",
}
"""Descriptions of the sets within a database."""

_BRANCHES = {"s": "one frame", "st": "three frames", "sa": "frame and sound"}
_COMPANIONS = {"short": "its neighbours in time", "long": "distant moments of its clip", "cross": "clips of its tag"}

STAGES = {
  "data": "Data",
  **{f"{branch}_coarse": f"{branch.upper()} coarse: {sees}, whole" for branch, sees in _BRANCHES.items()},
  **{f"tagger_{fold}": f"Audio tagger {fold + 1} of 3: the tag by sound alone" for fold in range(3)},
  "tag_heard": "Where the taggers hear the tag",
  "switch": "Audio switch: does the sound belong to what is seen?",
  "scam_coarse": "Coarse SCAM and its boxes",
  **{branch: f"{branch.upper()} fine: {sees}, crops" for branch, sees in _BRANCHES.items()},
  **{
    f"{branch}_plus_{companions}": f"{branch.upper()}+ {companions}: {sees}, with {what}"
    for branch, sees in _BRANCHES.items()
    for companions, what in _COMPANIONS.items()
    if (branch, companions) != ("sa", "short")
  },
  "scam_plus": "SCAM+ and the pseudo-fixations",
  "students": "The three students as one network",
  "sta": "STA: the student",
  "sta_plus_short": "STA+ short: the student with its neighbours in time",
  "sta_plus_long": "STA+ long: the student with distant moments of its clip",
  "model": "Model folder",
  "report": "Report",
}
"""The titles of the stages of a training."""

PICTURES = {"frame": "Frame", "sound": "Sound", "viewers": "Viewers"}
"""The titles of the pictures that do not belong to a method."""

_ROWS = {row.method: f"Row {row.number}: {row.title}" for row in ROWS}
_THRESHOLDED = re.compile(r"(.+)_(0\.\d+)")


def title_of(name: str) -> str:
  """Returns the title of a method, metric or picture; a name that is not in the tables is its own title.

  A method's name followed by `_0.3` is the method with values below 0.3 set to 0, and one followed by a suffix such as
  `_no_sound` is the method without a sense.
  """
  if match := _THRESHOLDED.fullmatch(name):
    return f"{title_of(match[1])}, threshold {match[2]}"
  if name.endswith(NO_CENTRE):
    return f"{title_of(name.removesuffix(NO_CENTRE))}, without the centre factor"
  method, senses = split_method(name)
  if senses != OWN:
    return ", ".join([title_of(method), *senses.changes])
  if name in METRICS or name in FURTHER:
    return metric_of(name).title
  if name in METHODS:
    return METHODS[name][0]
  return PICTURES.get(name) or _ROWS.get(name) or name


def description_of(method: str) -> str:
  """Returns the description of a method; "" for one that is not in the tables."""
  if match := _THRESHOLDED.fullmatch(method):
    return f"The same as {title_of(match[1])}, scaled to [0, 1], with values below {match[2]} set to 0."
  if method.endswith(NO_CENTRE):
    return "The same without the Gaussian at the centre that multiplies it."
  own, senses = split_method(method)
  if senses != OWN:
    return f"The same as {title_of(own)}, but the model is given {' and '.join(senses.changes)}."
  return METHODS.get(method, ("", ""))[1]
