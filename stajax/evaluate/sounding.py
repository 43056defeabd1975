"""Says without fixations whether a model hears: do its maps move with the sound, and towards what sounds?

  python -m stajax.evaluate.sounding --model RUN --data DATA --out sounding.json

The data are tagged clips with sound, as `stajax prepare` wrote them. Of a run that left clips out (`data.left_out`),
only these are used.

- *Exchanged sound*: how much of the map is elsewhere with the sound of another clip, or with none.
- *Side by side*: the middle halves of two clips of different tags make one picture, which is shown twice: with the
  sound of the one and with that of the other. The share of the map on the half that sounds should be larger.

Maps are without the centre factor. Legend: n frames, h w map.
"""

import copy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stajax import cli, runtime, screen, senses
from stajax import config as configuration
from stajax.data.records import Records
from stajax.files import write_json
from stajax.inference.clip import Clip, Sample, clip_samples, clip_sound
from stajax.inference.predictor import Predictor, load_predictor
from stajax.report.names import title_of
from stajax.train.validation import choose_clips

PROGRAM = "python -m stajax.evaluate.sounding"

_EXCHANGED = (senses.Senses(sound="other"), senses.Senses(sound="none"))


@dataclass(frozen=True)
class Arguments:
  """The options of the comparison."""

  model: Path
  """The model: its folder, or the work folder of its training."""
  data: Path
  """The folder that `stajax prepare` wrote."""
  out: Path | None = None
  """A file for the results of every clip and every pair, as JSON."""
  seed: int = 0
  """The seed that says which clips exchange their sound and which are side by side."""
  batch: int = 8
  """The number of frames that are computed together."""


@dataclass(frozen=True)
class Summary:
  """The mean of a number over clips or pairs.

  Attributes:
    mean: The mean.
    error: The standard error of the mean, NaN where there is only one.
    positive: In how many clips or pairs the number is positive.
    count: The number of clips or pairs.
  """

  mean: float
  error: float
  positive: int
  count: int


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  arguments = cli.parse(PROGRAM, Arguments, argv, description=__doc__)
  return cli.run(PROGRAM, lambda: _compare(arguments))


def _compare(arguments: Arguments) -> int:
  records = Records.open(arguments.data / "train")
  clips = find_clips(records, arguments.model)
  if len(clips) < 2:
    raise ValueError(f"{records.path}: found {len(clips)} clips with sound to look at, expected at least two")
  predictor = load_predictor(arguments.model, arguments.batch, centre=False, senses=_EXCHANGED)
  donors = senses.choose_donors(clips, arguments.seed)
  exchanged = {
    records.names[clip]: measure_exchange(predictor, records, clip, donors[clip])
    for clip in runtime.progress("exchanged sound", len(clips), "clip", iterable=clips)
  }
  plain, chosen = copy.copy(predictor), choose_pairs(records.tags, donors)
  plain.senses = ()
  pairs = {
    f"{records.names[left]} | {records.names[right]}": measure_pair(plain, records, left, right)
    for left, right in runtime.progress("side by side", len(chosen), "pair", iterable=chosen)
  }
  screen.say(format_results(exchanged, pairs))
  if arguments.out is not None:
    write_json(arguments.out, {"exchanged_sound": exchanged, "side_by_side": pairs})
  return 0


def find_clips(records: Records, model: Path) -> list[int]:
  """Returns the clips with sound; of the work folder of a run that left clips out, only these."""
  chosen = records.has_sound.copy()
  path = model / "config.json"
  if (model / "stages").is_dir() and path.is_file():
    config = configuration.loads(path.read_text(encoding="utf-8"), str(path))
    if config.data.left_out:
      chosen &= choose_clips(records.tags, config.data.left_out, config.seed)
  return np.flatnonzero(chosen).tolist()


def choose_pairs(tags: np.ndarray, donors: Mapping[int, int]) -> list[tuple[int, int]]:
  """Returns the pairs of a clip and its donor of which each has a tag that the other lacks.

  Args:
    tags: Not 0 where a clip has a tag, (C, c).
    donors: The clip whose sound each clip gets.
  """
  has = np.asarray(tags) > 0
  return [
    (clip, other)
    for clip, other in donors.items()
    if np.any(has[clip] & ~has[other]) and np.any(has[other] & ~has[clip])
  ]


def measure_exchange(predictor: Predictor, records: Records, clip: int, donor: int) -> dict[str, dict[str, float]]:
  """Returns how much of each method's maps moves with another sound or without one, {method: {sound: share}}.

  Args:
    predictor: The model, which makes maps with these changes.
    records: The clips.
    clip: The clip.
    donor: The clip whose sound is heard in its place.
  """
  samples = clip_samples(records, clip, predictor.side)
  times = np.arange(len(samples)) / records.rate[clip]
  maps = predictor.clip_maps(Clip(samples, other_sound=clip_sound(records, donor, times, loop=True)))
  found: dict[str, dict[str, float]] = {}
  for name in maps:
    method, sense = senses.split_method(name)
    if sense in _EXCHANGED:
      found.setdefault(method, {})[sense.sound] = float(np.mean(moved_share(maps[method], maps[name])))
  return found


def measure_pair(predictor: Predictor, records: Records, left: int, right: int) -> dict[str, float]:
  """Returns by how much the share of each method's maps on the left half grows where it, and not the right, sounds."""
  clips = [clip_samples(records, clip, predictor.side) for clip in (left, right)]
  shares = []
  for heard in (0, 1):
    maps = predictor.clip_maps(Clip(side_by_side(clips[0], clips[1], heard)))
    shares.append({name: share_at_left(x) for name, x in maps.items() if senses.split_method(name)[1] == senses.OWN})
  return {name: float(np.mean(shares[0][name] - shares[1][name])) for name in shares[0]}


def side_by_side(left: Sequence[Sample], right: Sequence[Sample], heard: int) -> list[Sample]:
  """Returns the middle halves of two clips' frames side by side, with the sound of the left (0) or the right (1)."""
  joined: list[Sample] = []
  for both in zip(left, right):
    width = both[0][0].shape[1]
    half, begin = width // 2, width // 4
    frames = [frame[:, begin : begin + length] for (frame, _), length in zip(both, (half, width - half))]
    joined.append((np.concatenate(frames, axis=1), both[heard][1]))
  return joined


def moved_share(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
  """Returns how much of each map (n, h, w) is elsewhere in another, (n,): 0 for the same, 1 where nothing overlaps."""
  first, second = (x / np.maximum(x.sum(axis=(1, 2), keepdims=True), 1e-12) for x in (maps, others))
  return np.abs(first - second).sum(axis=(1, 2)) / 2


def share_at_left(maps: np.ndarray) -> np.ndarray:
  """Returns the share of each map (n, h, w) that lies on its left half, (n,); one half for an empty map."""
  half, total = maps.shape[2] // 2, maps.sum(axis=(1, 2))
  return np.where(total > 0, maps[:, :, :half].sum(axis=(1, 2)) / np.maximum(total, 1e-12), 0.5)


def summarise(values: Sequence[float]) -> Summary:
  """Returns the mean of some numbers with its standard error."""
  x = np.asarray(values, np.float64)
  error = float(x.std(ddof=1) / np.sqrt(x.size)) if x.size > 1 else float("nan")
  return Summary(float(x.mean()) if x.size else float("nan"), error, int(np.sum(x > 0)), x.size)


def format_results(
  exchanged: Mapping[str, Mapping[str, Mapping[str, float]]], pairs: Mapping[str, Mapping[str, float]]
) -> str:
  """Returns both results as a table in Markdown, with standard errors."""
  methods: list[Any] = list(next(iter(exchanged.values())))
  lines = [
    f"{len(exchanged)} clips, {len(pairs)} pairs side by side",
    "",
    "| | moved by another sound | moved by no sound | more of the map on the half that sounds | in |",
    "|---|---|---|---|---|",
  ]
  for method in methods:
    moved = [summarise([clip[method][sound] for clip in exchanged.values()]) for sound in ("other", "none")]
    towards = summarise([pair[method] for pair in pairs.values()])
    cells = [f"{x.mean:.1%} ± {x.error:.1%}" for x in moved]
    cells += [f"{towards.mean:+.1%} ± {towards.error:.1%}", f"{towards.positive} of {towards.count} pairs"]
    lines.append(f"| {title_of(method)} | {' | '.join(cells)} |")
  return "\n".join(lines)


if __name__ == "__main__":
  sys.exit(main())
