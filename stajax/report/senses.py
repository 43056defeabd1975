"""What each sense adds to a model's maps: differences between its scores with all senses and without one, by video."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from stajax.report.names import title_of
from stajax.report.paired import Difference, summarise
from stajax.scoring.protocol import METRICS
from stajax.scoring.results import Evaluation, VideoScores
from stajax.senses import Senses, split_method

LEAST = 0.02
"""The smallest difference in NSS that counts."""
RULE = (
  "These lines compare the NSS of each video with and without; ± is half of a 95% interval (Student's t). A map hears, "
  f"or uses a sense, if the interval lies above 0 and the mean difference is at least {LEAST}. Otherwise it changes, "
  f"but not for the better, if the NSS of a video changes by at least {LEAST} on average; if not, the sense is unused. "
  "All videos count alike; where sound is changed, videos without sound are left out."
)
ORDER = ("nss", *(metric for metric in METRICS if metric != "nss"))
"""The metrics in the order in which they are shown."""
FOREIGN, OWN_SOUND, RIVALS = "foreign", "own_sound", "rivals"
"""The names of groups of a database: those with foreign sound, the others (which is made here), those with rivals."""


class MetricDifference(TypedDict):
  """The scores of a method with and without a sense, and their differences by video; None where undefined.

  Attributes:
    own: The mean over the videos with all senses.
    ablated: The same without one.
    difference: The mean of own − ablated.
    error: Its standard error.
    interval: Its 95% interval.
    better: The number of videos with own > ablated.
    videos: The number of videos that have both scores.
  """

  own: float | None
  ablated: float | None
  difference: float | None
  error: float | None
  interval: tuple[float | None, float | None]
  better: int
  videos: int


Differences = dict[str, dict[str, MetricDifference]]
"""{ablated method: {metric: difference}}"""


class SenseComparison(TypedDict):
  """What is reported about senses.

  Attributes:
    says: A line for each ablation of the final map.
    rule: How the lines are chosen.
    differences: {set: {ablated method: {metric: difference}}}
  """

  says: list[str]
  rule: str
  differences: dict[str, Differences]


@dataclass(frozen=True)
class _Words:
  """The words of a line about one ablation."""

  uses: str
  changes: str
  ignores: str
  without: str
  taking: str


_WITHOUT = {
  Senses(sound="other"): _Words(
    "hears",
    "changes with the sound, but not for the better",
    "is deaf",
    "with its own sound its NSS is {} than with another video's sound",
    "exchanging the sound",
  ),
  Senses(sound="none"): _Words(
    "uses its sound",
    "changes without its sound, but not for the worse",
    "makes no use of its sound",
    "with its own sound its NSS is {} than without any",
    "taking the sound away",
  ),
  Senses(motion="none"): _Words(
    "uses motion",
    "changes without motion, but not for the worse",
    "makes no use of motion",
    "with its three frames its NSS is {} than with the middle one three times",
    "taking the motion away",
  ),
  Senses(companions="none"): _Words(
    "uses its companions",
    "changes without its companions, but not for the worse",
    "makes no use of its companions",
    "with companions its NSS is {} than with the target in place of them",
    "taking the companions away",
  ),
}


def compare_senses(
  evaluation: Evaluation, senses: Sequence[Senses], sounding: Collection[tuple[str, str]]
) -> SenseComparison:
  """Compares the methods of an evaluation with what they are under each ablation.

  Args:
    evaluation: The scores, which have methods such as `final` and `final_no_sound`.
    senses: The ablations.
    sounding: The (database, name) of the videos that have sound.
  """
  methods = [method for method in evaluation.methods if split_method(method)[1] in senses]
  sets = sets_of(evaluation)
  differences: dict[str, Differences] = {}
  for name, videos in sets.items():
    differences[name] = {}
    for method in methods:
      compared = _compared(videos, split_method(method)[1], sounding)
      differences[name][method] = {metric: _describe(evaluation, compared, method, metric) for metric in ORDER}
  return {
    "says": [_say(evaluation, each, sounding) for each in senses],
    "rule": RULE,
    "differences": differences,
  }


def sets_of(evaluation: Evaluation) -> dict[str, list[VideoScores]]:
  """Returns the videos of the sets that are compared, by name.

  These are the databases and their groups. Where a database has a group `foreign`, the videos outside it are a set
  `own_sound`, and those of them with rivals `rivals/own_sound`. Several databases are also taken together, as `all`.
  """
  sets = evaluation.sets()
  databases = [name for name in sets if "/" not in name]
  found = {"all": list(evaluation.videos)} if len(databases) > 1 else {}
  for name, videos in sets.items():
    found[name] = videos
    database, _, group = name.partition("/")
    if group in ("", RIVALS) and f"{database}/{FOREIGN}" in sets:
      own = [video for video in videos if not _is_foreign(evaluation, video)]
      found |= {f"{name}/{OWN_SOUND}": own} if own else {}
  return found


def _is_foreign(evaluation: Evaluation, video: VideoScores) -> bool:
  return video.name in evaluation.groups.get(f"{video.database}/{FOREIGN}", ())


def _compared(
  videos: Sequence[VideoScores], senses: Senses, sounding: Collection[tuple[str, str]]
) -> list[VideoScores]:
  """Returns the videos for which an ablation changes what is shown."""
  return [video for video in videos if senses.sound == "own" or (video.database, video.name) in sounding]


def _scores(evaluation: Evaluation, videos: Sequence[VideoScores], method: str, metric: str) -> np.ndarray:
  """Returns the scores (2, n) with all senses and of an ablated method, for the videos that have both."""
  own, _ = split_method(method)
  pairs = [
    [evaluation.video_score(video, name, metric) for name in (own, method)]
    for video in videos
    if method in video.scores and own in video.scores
  ]
  scores = np.array(pairs, np.float64).reshape(-1, 2).T
  return scores[:, ~np.isnan(scores).any(axis=0)]


def _difference(scores: np.ndarray) -> Difference:
  return summarise([scores[0] - scores[1]])


def _describe(evaluation: Evaluation, videos: Sequence[VideoScores], method: str, metric: str) -> MetricDifference:
  scores = _scores(evaluation, videos, method, metric)
  found = _difference(scores)
  low, high = found.mean - found.half_width, found.mean + found.half_width
  own, ablated = scores.mean(axis=1).tolist() if scores.size else (math.nan, math.nan)
  return {
    "own": _finite(own),
    "ablated": _finite(ablated),
    "difference": _finite(found.mean),
    "error": _finite(found.error),
    "interval": (_finite(low), _finite(high)),
    "better": found.num_better,
    "videos": found.num_clips,
  }


def _finite(value: float) -> float | None:
  return None if math.isnan(value) else value


def _say(evaluation: Evaluation, senses: Senses, sounding: Collection[tuple[str, str]]) -> str:
  """Returns a line about what an ablation does to the final map, without the videos whose sound is foreign."""
  has_foreign = any(_is_foreign(evaluation, video) for video in evaluation.videos)
  videos = [video for video in evaluation.videos if not _is_foreign(evaluation, video)]
  kind = "videos without foreign sound" if has_foreign else "videos"
  compared = _compared(videos, senses, sounding)
  if senses.sound != "own" and not compared:
    return f"None of the {len(videos)} {kind} has sound: there is no sound to exchange or to take away."
  scores = _scores(evaluation, compared, f"final{senses.suffix}", "nss")
  words, found = _words(senses), _difference(scores)
  if found.num_clips < 2:
    one_video = kind.replace("videos", "video")
    number = f"One {one_video} is" if found.num_clips else f"No {one_video} is left, which is"
    return f"{number} too little to say whether the final map {words.uses}."
  margin = f"± {found.half_width:.3f}"
  if found.mean - found.half_width > 0 and found.mean >= LEAST:
    better = words.without.format(f"{found.mean:.3f} {margin} higher")
    share = found.num_better / found.num_clips
    return f"The final map {words.uses}: {better}; it is higher in {share:.0%} of {found.num_clips} {kind}."
  change = float(np.abs(scores[0] - scores[1]).mean())
  effect = f"{words.taking} changes its NSS by {_signed(-found.mean)} {margin}"
  if change >= LEAST:
    size = f"{change:.3f} in either direction"
    return f"The final map {words.changes}: {effect} in {found.num_clips} {kind}, on average by {size}."
  return f"The final map {words.ignores}: {effect} in {found.num_clips} {kind}."


def _words(senses: Senses) -> _Words:
  if senses in _WITHOUT:
    return _WITHOUT[senses]
  what = " and ".join(senses.changes)
  return _Words(
    f"uses what it lacks with {what}",
    f"changes with {what}, but not for the worse",
    f"does as well with {what}",
    f"with all that it usually has its NSS is {{}} than with {what}",
    f"giving it {what}",
  )


def format_comparison(comparison: SenseComparison) -> str:
  """Returns the lines and the differences of the first set as text for a terminal."""
  name, differences = next(iter(comparison["differences"].items()))
  width = max(map(len, differences), default=0)
  lines = [f"What each sense adds in {name} (own − ablated, ± half of a 95% interval)"]
  lines.append(" " * (width + 4) + "".join(f"{title_of(metric):>16}" for metric in ORDER) + "   NSS better in")
  for method, of_metrics in differences.items():
    cells = "".join(f"{format_difference(of_metrics[metric]):>16}" for metric in ORDER)
    lines.append(f"  {method:<{width + 2}}{cells}   {format_share(of_metrics['nss'])}")
  return "\n".join([*lines, *comparison["says"]])


def format_difference(found: MetricDifference) -> str:
  """Returns a difference with half the width of its interval, or a dash where it is not defined."""
  low, high = found["interval"]
  if found["difference"] is None:
    return "–"
  if low is None or high is None:
    return _signed(found["difference"])
  return f"{_signed(found['difference'])} ± {(high - low) / 2:.3f}"


def format_share(found: MetricDifference) -> str:
  """Returns in how many videos the score is better with all senses."""
  return f"{found['better']} of {found['videos']}"


def _signed(value: float) -> str:
  return f"{round(value, 3) + 0.0:+.3f}".replace("-", "−")  # + 0.0: never "-0.000"


@dataclass(frozen=True)
class SenseTable:
  """The comparison of one set as a table.

  Attributes:
    name: The name of the set.
    is_open: Whether it is shown at once: a database, or the clips in which only their own sound says who counts.
    rows: For each ablation its title, the NSS with and without, then the differences in every metric of `ORDER`, and
      the share of videos that are better; the first row of each method is marked.
  """

  name: str
  is_open: bool
  rows: list[tuple[str, bool, list[str]]]


def sense_tables(comparison: SenseComparison) -> list[SenseTable]:
  """Returns the comparison as tables, with the final map's rows first."""
  return [
    SenseTable(name, "/" not in name or name.endswith(f"/{RIVALS}/{OWN_SOUND}"), _table_rows(of_set))
    for name, of_set in comparison["differences"].items()
  ]


def _table_rows(of_set: Mapping[str, Mapping[str, MetricDifference]]) -> list[tuple[str, bool, list[str]]]:
  def own(method: str) -> str:
    return split_method(method)[0]

  found = ["final", *dict.fromkeys(map(own, of_set))]
  ordered = sorted(of_set, key=lambda method: found.index(own(method)))
  rows: list[tuple[str, bool, list[str]]] = []
  last = ""
  for method in ordered:
    nss = of_set[method]["nss"]
    scores = ["–" if value is None else f"{value:.3f}" for value in (nss["own"], nss["ablated"])]
    differences = [format_difference(of_set[method][metric]) for metric in ORDER]
    rows.append((title_of(method), own(method) != last, [*scores, differences[0], format_share(nss), *differences[1:]]))
    last = own(method)
  return rows
