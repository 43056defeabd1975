"""Predicts where people look in videos: writes saliency maps, an overlay video and numbers for every frame.

  stajax predict VIDEO… --out DIR [--model DIR]
  stajax predict --model DIR --data stavis:ROOT --out DIR

The first form writes, for each video, `<name>.maps-000.npz` and so on (at most 1,000 maps each, as soon as each is
full), `<name>.overlay.mp4` and, last of all, `<name>.json`: if this file exists, the outputs are complete, and the
video is left as it is. With --beam the workers of an Apache Beam runner do this. The second form writes a grey image
for every frame of an eye-tracking set, as `stajax evaluate --maps` reads them.
Exit codes: 0 all videos are done, 1 some failed (a line for each on stderr), 2 bad input, 3 all videos failed, 75 after
SIGTERM, 130 after Ctrl-C (the same command goes on).
"""

import shlex
import sys
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import tyro

from stajax import cli, runtime, screen
from stajax.files.lock import exclusive
from stajax.files.names import printable
from stajax.hints import is_address
from stajax.inference import Precision
from stajax.media import isolated
from stajax.media.file import Decoding
from stajax.predict.api import SaliencyModel, StudentName
from stajax.predict.beam import Outcome, predict_on_beam
from stajax.predict.inputs import describe_left_out, find_videos
from stajax.predict.job import Job
from stajax.predict.names import is_done
from stajax.predict.per_video import MAX_SECONDS, MapStream, Sampling, Summary, TimedMap
from stajax.predict.wanted import USUAL, Wanted
from stajax.runtime import memory

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
  precision: Precision | None = None
  """Compute convolutions in this type instead of that of the model; int8 is for what encodes frames, and needs a model
  that `python -m stajax.predict.calibrate` wrote."""
  sound_stream: int | None = None
  """The sound stream of files that have several, counted from 1; by default the one that the file prefers."""
  hardware_decoder: str | None = None
  """Decode pictures by hardware of this kind, such as cuda, vaapi or videotoolbox; by default by software."""
  hardware_fallback: bool = False
  """Decode by software, with a note, what --hardware-decoder cannot, rather than fail."""
  max_seconds: float = MAX_SECONDS
  """A longer video is refused, because a small file can say that it lasts for days."""
  wanted: tyro.conf.OmitArgPrefixes[Wanted] = USUAL
  """The files that are written."""
  beam: str | None = None
  """Options of an Apache Beam pipeline that predicts the videos: `--beam="--runner=FlinkRunner …"`, see
  launch/beam.md."""
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
  for line in describe_left_out(arguments.videos, arguments.recursive):
    _say(f"note: {line}", is_about_a_fault=True)
  job = _job(arguments)
  if arguments.beam is not None:
    return _predict_on_beam(job, videos, shlex.split(arguments.beam))
  memory.hold_less_memory()
  isolated.start()  # beside JAX and the model
  _check_hardware(job.decoding)
  model = _load(job)
  settings = job.settings(model)
  done = set[str]() if arguments.overwrite else {name for _, name in videos if is_done(job.out, name, settings)}
  return _predict_videos(job, videos, done, model)


def _sampling(arguments: Arguments) -> Sampling:
  return Sampling(1 if arguments.every_frame else arguments.every, arguments.fps, arguments.smooth)


def _job(arguments: Arguments) -> Job:
  """Returns how videos are predicted, and makes the folder for the outputs."""
  cli.make_out_folder("--out", arguments.out)
  return Job(
    arguments.out,
    arguments.model,
    "sta" if arguments.fast else arguments.student,
    True if arguments.centre else False if arguments.no_centre else None,
    arguments.batch,
    _sampling(arguments),
    arguments.wanted,
    Decoding(sound=arguments.sound_stream, hardware=arguments.hardware_decoder, falls_back=arguments.hardware_fallback),
    arguments.max_seconds,
    arguments.overwrite,
    arguments.precision,
  )


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
  if arguments.hardware_fallback and arguments.hardware_decoder is None:
    raise ValueError("--hardware-fallback: expected --hardware-decoder with it")
  if arguments.data is not None and arguments.hardware_decoder is not None:
    raise ValueError(f"--hardware-decoder and --data {arguments.data}: expected videos with it, a set has images")
  if arguments.data is not None and arguments.videos:
    raise ValueError(f"--data and {arguments.videos[0]}: expected either a data set or videos")
  if arguments.data is not None and arguments.beam is not None:
    raise ValueError(f"--beam and --data {arguments.data}: expected videos with --beam, or --part with --data")
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


def _check_hardware(decoding: Decoding) -> None:
  """Raises ValueError if this machine cannot decode any video as it is wanted."""
  if decoding.hardware is not None and not decoding.falls_back and (reason := isolated.why_missing(decoding.hardware)):
    raise ValueError(f"--hardware-decoder {decoding.hardware}: {reason}; expected one that is found, or software")


def _load(job: Job) -> SaliencyModel:
  """Loads the model. This takes seconds, so the other arguments are checked first."""
  with cli.ended_by_interrupts(PROGRAM):
    return job.load()


def _predict_videos(job: Job, videos: Sequence[tuple[Path, str]], done: Collection[str], model: SaliencyModel) -> int:
  summaries: list[Summary] = []
  num_failed, start = 0, time.monotonic()
  for path, name in videos:
    if name in done:
      _say(f"{path}: done before, left as it is")
      continue
    if Path(name).name != path.stem:
      _say(f"note: the outputs of {path} are named {name}", is_about_a_fault=True)
    began = time.monotonic()
    try:
      summary = job.predict(model, path, name, partial(_with_bar, path.name))
    except Exception as error:  # no error of one video, of FFmpeg, XLA or the disk, may stop the others
      cli.fail(PROGRAM, screen.one_line(error, path))
      num_failed += 1
      continue
    for note in summary.notes:
      _say(f"{path}: {note}", is_about_a_fault=True)
    summaries.append(summary)
    seconds = time.monotonic() - began
    made = f"{screen.counted(summary.frames, 'frame')}, {screen.counted(summary.maps, 'map')}"
    _say(f"{path}: {made} in {seconds:.1f} s: {job.out / name}.json")
  return _finish(job, summaries, len(videos), len(done), num_failed, start)


def _with_bar(name: str, stream: MapStream) -> Iterable[TimedMap]:
  return runtime.progress(printable(name), stream.expected_length, "map", iterable=stream, leave=False)


def _predict_on_beam(job: Job, videos: Sequence[tuple[Path, str]], options: Sequence[str]) -> int:
  start, model = time.monotonic(), job.model
  if model is not None and not is_address(model):
    model = str(Path(model).absolute())  # workers may have another working folder
  job = replace(job, out=job.out.absolute(), model=model)
  outcomes = predict_on_beam(job, videos, options)
  for (path, name), outcome in zip(videos, outcomes, strict=True):
    if Path(name).name != path.stem and not outcome.was_done:
      _say(f"note: the outputs of {path} are named {name}", is_about_a_fault=True)
    for note in outcome.notes:
      _say(f"{path}: {note}", is_about_a_fault=True)
    if outcome.error:
      cli.fail(PROGRAM, outcome.error)
  made = [outcome for outcome in outcomes if not outcome.error and not outcome.was_done]
  num_failed = sum(bool(outcome.error) for outcome in outcomes)
  return _finish(job, made, len(videos), len(videos) - len(made) - num_failed, num_failed, start)


def _finish(
  job: Job, made: Sequence[Summary | Outcome], num_videos: int, num_done: int, num_failed: int, start: float
) -> int:
  """Prints what was done; returns the exit code."""
  done_before = f", {num_done} were done before" if num_done else ""
  what = f"{len(made)} of {num_videos} videos{done_before}, {sum(each.frames for each in made)} frames"
  _print_summary(what, sum(each.maps for each in made), start, num_failed, job.out)
  return cli.exit_code(num_failed, num_videos)


def _predict_dataset(arguments: Arguments, data: str) -> int:
  from stajax.eyetracking import is_avimos, parse_data, read_tree

  as_videos = is_avimos(data)
  part = cli.read_part(arguments.part)
  tree = read_tree(parse_data(data), arguments.databases or None, need_annotations=False)
  model = _load(_job(arguments))
  from stajax.predict.per_dataset import missing_videos, predict_dataset  # loads JAX

  skipped = tree.skipped if part.index == 0 else ()  # one process says so
  for database, video, reason in skipped:
    cli.fail(PROGRAM, f"{database}/{video}: {reason}")
  for note in (*tree.notes, *model.notes):
    _say(f"note: {note}")
  num_maps, num_made, num_failed, start = 0, 0, len(skipped), time.monotonic()
  with exclusive(arguments.out / f".predict-{part.index}.lock"):
    for video, num_written, error in predict_dataset(model.predictor, tree.videos, arguments.out, part, as_videos):
      if error is not None:
        cli.fail(PROGRAM, screen.one_line(error, Path(video.database) / video.name))
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


def _say(text: str, is_about_a_fault: bool = False) -> None:
  """Prints one line, also if a name in it has line breaks."""
  screen.say(text.replace("\n", "\\n"), is_about_a_fault)


def _print_summary(what: str, num_maps: int, start: float, num_failed: int, out: Path) -> None:
  seconds = time.monotonic() - start
  rate = num_maps / max(seconds, 1e-9)
  _say(f"{what}, {num_maps} maps in {seconds:.1f} s ({rate:.1f} a second), {num_failed} failed, in {out}")


if __name__ == "__main__":
  sys.exit(main())
