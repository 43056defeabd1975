"""Predicts where people look in videos: writes saliency maps, an overlay video and numbers for every frame.

  stajax predict VIDEO… --out DIR [--model DIR]
  stajax predict --model DIR --data stavis:ROOT --out DIR

The first form writes, for each video, `<name>.maps-000.npz` and so on (at most 1,000 maps each, as soon as each is
full), `<name>.overlay.mp4` and, last of all, `<name>.json`: if this file exists, the outputs are complete, and the
video is left as it is. The second form writes a grey image for every frame of an eye-tracking set, as `stajax evaluate
--maps` reads them.
Exit codes: 0 all videos are done, 1 some failed (a line for each on stderr), 2 bad input, 3 all videos failed.
"""

import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from stajax import cli, runtime
from stajax.files import exclusive, is_address, make_folder, printable, sha256_of_json
from stajax.media import isolated
from stajax.predict.api import SaliencyModel, StudentName, load
from stajax.predict.inputs import describe_left_out, find_videos
from stajax.predict.names import is_done
from stajax.predict.per_video import MAX_SECONDS, Sampling, Summary, open_video, write_outputs
from stajax.predict.wanted import USUAL, Wanted, make_outputs

PROGRAM = "stajax predict"


@dataclass(frozen=True)
class Arguments:
  """The options of `stajax predict`."""

  videos: tyro.conf.Positional[tuple[Path, ...]]
  """Video files, folders that hold them, or patterns such as 'day*/*.mp4'."""
  out: Path
  """The folder for the outputs."""
  model: str | None = None
  """A trained model's folder, the work folder of its training, or the address of a model, https://… or hf://owner/name;
  by default the model that the package comes with."""
  recursive: bool = False
  """Search the folders in folders, too; outputs are in folders of the same names."""
  data: str | None = None
  """An eye-tracking set instead of videos: stavis:ROOT writes a grey image for every frame, avimos:ROOT (of `prepare
  avimos`) a grey video for each video, as that challenge takes it. Videos that are already done are left as they
  are."""
  databases: tuple[str, ...] = ()
  """The databases of that set to predict; all if none is named."""
  part: str | None = None
  """With --data: the share of this process, if several predict the set into the same --out: 0/4, 1/4, 2/4 or 3/4."""
  student: StudentName | None = None
  """Use one student alone, instead of fusing all three."""
  fast: bool = False
  """Use the student STA alone: the same as --student sta."""
  every_frame: bool = False
  """Compute a map for each native frame instead of interpolating between those on the model's grid: --every 1."""
  every: int | None = None
  """Compute a map for each native frame whose number is a multiple of this."""
  fps: float | None = None
  """Compute this many maps a second; by default as many as the model was trained with."""
  smooth: float = 0.0
  """Smooth the maps in time by a Gaussian of this standard deviation, in seconds."""
  batch: int = 8
  """The number of frames that are computed together."""
  sound_stream: int | None = None
  """The sound stream of files that have several, counted from 1; by default the one that the file prefers."""
  max_seconds: float = MAX_SECONDS
  """A longer video is refused, because a small file can say that it lasts for days."""
  wanted: tyro.conf.OmitArgPrefixes[Wanted] = USUAL
  """The files that are written."""
  overwrite: bool = False
  """Replace what was written for a video before, rather than leave it (if it was made alike) or refuse (if not)."""
  centre: tyro.conf.FlagCreatePairsOff[bool] = False
  """Multiply the maps by a Gaussian at the centre, 0.2 of the frame wide; by default, as the model was configured."""
  no_centre: tyro.conf.FlagCreatePairsOff[bool] = False
  """Do not multiply the maps by it, even if the model was configured to."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return cli.run(PROGRAM, lambda: _predict(cli.parse(PROGRAM, Arguments, argv, description=__doc__)))


def _predict(arguments: Arguments) -> int:
  _check(arguments)
  if arguments.data is not None:
    return _predict_dataset(arguments, arguments.data)
  videos = find_videos(arguments.videos, arguments.out, arguments.recursive)
  isolated.start()  # beside JAX and the model
  for line in describe_left_out(arguments.videos, arguments.recursive):
    cli.say(f"note: {line}", is_about_a_fault=True)
  model = _load(arguments)
  settings = _settings(arguments, model)
  done = set[str]() if arguments.overwrite else {name for _, name in videos if is_done(arguments.out, name, settings)}
  return _predict_videos(arguments, videos, done, settings, model)


def _sampling(arguments: Arguments) -> Sampling:
  return Sampling(1 if arguments.every_frame else arguments.every, arguments.fps, arguments.smooth)


def _settings(arguments: Arguments, model: SaliencyModel) -> dict[str, Any]:
  """Returns what the files depend on besides the videos."""
  sound, wanted = arguments.sound_stream, asdict(arguments.wanted)
  return {
    "made_with": sha256_of_json(dict(model.predictor.made_with)),
    "sound": sound,
    **asdict(_sampling(arguments)),
    **wanted,
  }


def _check(arguments: Arguments) -> None:
  if arguments.batch < 1:
    raise ValueError(f"--batch {arguments.batch}: expected at least 1")
  if not arguments.max_seconds > 0:
    raise ValueError(f"--max-seconds {arguments.max_seconds}: expected more than 0")
  if arguments.sound_stream is not None and arguments.sound_stream < 1:
    raise ValueError(f"--sound-stream {arguments.sound_stream}: expected at least 1")
  _sampling(arguments)
  if arguments.every_frame and arguments.every not in (None, 1):
    raise ValueError(f"--every-frame and --every {arguments.every}: expected one of them")
  if arguments.data is not None and arguments.videos:
    raise ValueError(f"--data and {arguments.videos[0]}: expected either a data set or videos")
  if arguments.data is None and arguments.part is not None:
    raise ValueError(f"--part {arguments.part}: expected --data with it")
  if arguments.data is None and not arguments.videos:
    raise ValueError("no video: expected at least one file or folder, or --data")
  if arguments.fast and arguments.student not in (None, "sta"):
    raise ValueError(f"--fast and --student {arguments.student}: expected one of them")
  if arguments.centre and arguments.no_centre:
    raise ValueError("--centre and --no-centre: expected one of them")
  if arguments.model is not None and not is_address(arguments.model) and not Path(arguments.model).is_dir():
    raise FileNotFoundError(f"{arguments.model}: no such folder, expected a trained model")


def _load(arguments: Arguments) -> SaliencyModel:
  """Loads the model. This takes seconds, so the other arguments are checked first."""
  cli.make_out_folder("--out", arguments.out)
  centre = True if arguments.centre else False if arguments.no_centre else None
  with cli.ended_by_interrupts(PROGRAM):
    return load(arguments.model, "sta" if arguments.fast else arguments.student, centre, arguments.batch)


def _predict_videos(
  arguments: Arguments,
  videos: Sequence[tuple[Path, str]],
  done: Collection[str],
  settings: dict[str, Any],
  model: SaliencyModel,
) -> int:
  summaries: list[Summary] = []
  num_failed, start = 0, time.monotonic()
  for path, name in videos:
    if name in done:
      cli.say(f"{path}: done before, left as it is")
      continue
    if Path(name).name != path.stem:
      cli.say(f"note: the outputs of {path} are named {name}", is_about_a_fault=True)
    began = time.monotonic()
    try:
      summary = _predict_video(arguments, path, name, settings, model)
    except Exception as error:  # no error of one video, of FFmpeg, XLA or the disk, may stop the others
      cli.fail(PROGRAM, cli.one_line(error, path))
      num_failed += 1
      continue
    for note in summary.notes:
      cli.say(f"{path}: {note}", is_about_a_fault=True)
    summaries.append(summary)
    seconds = time.monotonic() - began
    cli.say(f"{path}: {summary.frames} frames, {summary.maps} maps in {seconds:.1f} s: {arguments.out / name}.json")
  num_maps, num_left = sum(summary.maps for summary in summaries), len(done) and f", {len(done)} were done before"
  what = f"{len(summaries)} of {len(videos)} videos{num_left or ''}, {sum(s.frames for s in summaries)} frames"
  _print_summary(what, num_maps, start, num_failed, arguments.out)
  return cli.exit_code(num_failed, len(videos))


def _predict_video(
  arguments: Arguments, path: Path, name: str, settings: dict[str, Any], model: SaliencyModel
) -> Summary:
  stream = open_video(
    model.predictor, path, _sampling(arguments), model.name, arguments.sound_stream, arguments.max_seconds
  )
  provenance = replace(stream.provenance, settings=settings)
  target = arguments.out / name  # whose name may have dots
  make_folder(target.parent)
  outputs = make_outputs(target.parent, target.name, provenance, arguments.wanted)
  bar = runtime.progress(printable(path.name), stream.expected_length, "map", iterable=stream, leave=False)
  with exclusive(target.with_name(f".{target.name}.lock")):
    return write_outputs(bar, provenance, outputs)


def _predict_dataset(arguments: Arguments, data: str) -> int:
  from stajax.eyetracking import is_avimos, parse_data, read_tree

  as_videos = is_avimos(data)
  part = cli.read_part(arguments.part)
  tree = read_tree(parse_data(data), arguments.databases or None, need_annotations=False)
  model = _load(arguments)
  from stajax.predict.per_dataset import missing_videos, predict_dataset  # loads JAX

  skipped = tree.skipped if part.index == 0 else ()  # one process says so
  for database, video, reason in skipped:
    cli.fail(PROGRAM, f"{database}/{video}: {reason}")
  for note in (*tree.notes, *model.notes):
    cli.say(f"note: {note}")
  num_maps, num_made, num_failed, start = 0, 0, len(skipped), time.monotonic()
  with exclusive(arguments.out / f".predict-{part.index}.lock"):
    for video, num_written, error in predict_dataset(model.predictor, tree.videos, arguments.out, part, as_videos):
      if error is not None:
        cli.fail(PROGRAM, cli.one_line(error, Path(video.database) / video.name))
        num_failed += 1
      else:
        num_made += 1
      num_maps += num_written
  num_videos = len(tree.videos) + len(tree.skipped)
  num_missing = len(missing_videos(arguments.out, tree.videos, as_videos))
  if part == cli.WHOLE:
    what = f"{num_made} of {num_videos} videos, {num_videos - num_made - num_failed} were already there"
  else:
    what = f"part {part}: {num_made} of {num_videos} videos, {num_missing} of all are not there yet"
  _print_summary(what, num_maps, start, num_failed, arguments.out)
  return cli.exit_code(num_failed, num_videos)


def _print_summary(what: str, num_maps: int, start: float, num_failed: int, out: Path) -> None:
  seconds = time.monotonic() - start
  rate = num_maps / max(seconds, 1e-9)
  cli.say(f"{what}, {num_maps} maps in {seconds:.1f} s ({rate:.1f} a second), {num_failed} failed, in {out}")


if __name__ == "__main__":
  sys.exit(main())
