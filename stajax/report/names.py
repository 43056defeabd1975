"""What methods, metrics and sets are called on pages and in tables, and one line on each."""

METRICS = {
  "auc_judd": (
    "AUC-J",
    "Area under the ROC curve of telling the fixated pixels from all others by the map. Chance is 0.5, perfect is 1.",
  ),
  "s_auc": (
    "s-AUC",
    "The same, but the others are the pixels fixated in other frames of the same video: always pointing at the middle "
    "earns little. Chance is 0.5.",
  ),
  "nss": (
    "NSS",
    "The map's mean value at the fixations, in standard deviations above the map's mean. Chance is 0, no upper limit.",
  ),
  "sim": ("SIM", "Overlap of the map with the viewers' density, each summing to 1. From 0 to 1."),
  "cc": ("CC", "Linear correlation of the map with the viewers' density. From −1 to 1, chance is 0."),
}

METHODS = {
  "centre": ("Centre", "Baseline: one Gaussian in the middle of every frame, whatever it shows."),
  "uniform": ("Uniform", "Baseline: a constant map, for which only AUC-J is defined."),
  "cam_s": ("CAM S", "Class activation map of the clip's tag, by the classifier that sees one frame (S)."),
  "cam_st": ("CAM ST", "The same by the classifier that sees three frames, so motion as well (ST)."),
  "cam_sa": ("CAM SA", "The same by the classifier that sees one frame and hears its second of sound (SA)."),
  "scam": ("SCAM", "Mean of the three CAMs, weighted by confidence, of the classifiers that find the clip's tag."),
  "sta": ("STA", "The student: it learned from pseudo-fixations, sees and hears the clip, and needs no tag."),
}

SETS = {
  "synthetic/foreign": "sound foreign to the tag",
  "synthetic/repeat": "object repeats or leaves",
}

STAGES = {
  "s": "S: one frame",
  "st": "ST: three frames",
  "sa": "SA: frame and sound",
  "sta": "STA: the student",
}

PICTURES = {"frame": "Frame", "viewers": "Viewers"}


def title_of(name: str) -> str:
  """The title of a method, metric or picture; a name that is not in the tables is shown as it is."""
  if name in PICTURES:
    return PICTURES[name]
  return (METHODS.get(name) or METRICS.get(name) or (name,))[0]
