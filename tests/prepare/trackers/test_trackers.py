"""Tests of the readers of eye trackers' exports, on small files in the layouts of several versions and countries."""

import csv
import gzip
import json

import numpy as np
import pytest

from stajax import __main__ as console
from stajax.eyetracking import read_tree
from stajax.prepare.listing import ListingError
from stajax.prepare.trackers import bids, eyelink, pupil, tobii
from stajax.prepare.trackers.gathered import Asked, Fixation, Gathered, Shown, number, video_name

ASC = """** CONVERTED FROM D:\\a.edf using edfapi 4.2.1 Win32
** TYPE: EDF_FILE BINARY EVENT SAMPLE TAGGED
MSG\t1000 DISPLAY_COORDS 0 0 1919 1079
START\t1001 \tLEFT\tSAMPLES\tEVENTS
PRESCALER\t1
EVENTS\tGAZE\tLEFT\tRATE\t1000.00\tTRACKING\tCR\tFILTER\t2
SFIX L   1002
1002\t  900.0\t  500.0\t 1024.0\t...
EFIX L   1002\t1399\t398\t  111.0\t  222.0\t   1020
MSG\t1500 TRIALID 1
MSG\t2016 16 PLAY clip_a.avi
EFIX L   1900\t2199\t300\t  960.5\t  540.2\t   1020
EFIX L   2300\t2499\t200\t     .\t     .\t      0
EFIX L   2500\t2899\t400\t  2500.0\t  -20.0\t   1000
1503\t   .\t   .\t    0.0\t...
MSG\t2700 PLAY "sub dir\\clip_b.avi"
END\t3000 \tSAMPLES\tEVENTS\tRES\t  38.54\t  31.12
"""


def write(path, text, encoding="utf-8"):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(text.encode(encoding))
  return path


def test_eyelink_fixations_are_cut_to_the_videos_that_messages_begin(tmp_path):
  found = eyelink.read_eyelink([write(tmp_path / "anna.asc", ASC)], Asked(start=r"PLAY (.+)"))
  # The message of clip_a was written at 2016, 16 ms after what it is about.
  assert found.tables == {
    "clip_a": [
      (0.0, 0.199, 960.5, 540.2, "anna"),
      (0.5, 0.2, 2500.0, -20.0, "anna"),  # off the screen: `prepare videos` counts it
    ],
    "clip_b": [(0.0, 0.199, 2500.0, -20.0, "anna")],
  }
  assert found.units == ("--units", "screen", "--screen", "1920x1080")
  assert found.lost == {"that have no place": 1, "while no video was shown": 1}


@pytest.mark.parametrize(
  ("edges", "screen"),
  [("0 0 1920 1080", "1920x1080"), ("0.00 0.00 1023.00 767.00", "1024x768"), (None, "WIDTHxHEIGHT")],
)
def test_eyelink_screens(tmp_path, edges, screen):
  line = "MSG\t1000 DISPLAY_COORDS 0 0 1919 1079\n"
  text = ASC.replace(line, f"MSG\t1000 GAZE_COORDS {edges}\n" if edges else "")
  found = eyelink.read_eyelink([write(tmp_path / "a.asc", text)], Asked(start="TRIALID", video="x.mp4"))
  assert found.units is not None and found.units[-1] == screen and list(found.tables) == ["x"]


def test_eyelink_needs_to_know_the_eye_if_both_were_tracked(tmp_path):
  right = "EFIX R   2000\t2099\t100\t  10.0\t  20.0\t   1020\t38.5\t31.1\n"
  path = write(tmp_path / "a.asc", ASC.replace("EFIX L   2300", right + "EFIX L   2300"))
  with pytest.raises(ListingError, match="both eyes were tracked: expected --eye left or --eye right"):
    eyelink.read_eyelink([path], Asked(start="PLAY (.+)"))
  found = eyelink.read_eyelink([path], Asked("right", start="PLAY (.+)"))
  assert found.tables["clip_a"] == [(0.0, 0.099, 10.0, 20.0, "a")]


@pytest.mark.parametrize(
  ("change", "asked", "message"),
  [
    (lambda text: text, {}, r"expected --start-message .*; messages begin with: PLAY \(2\), DISPLAY_"),
    (lambda text: text, {"start": "SHOW"}, "no message begins a video"),
    (lambda text: text, {"start": "PLAY .+"}, "--start-message has no group"),
    (lambda text: text, {"eye": "right", "start": "PLAY (.+)"}, "only the left eye was tracked"),
    (lambda text: text.replace("EVENTS\tGAZE", "EVENTS\tHREF"), {"start": "PLAY (.+)"}, "are in HREF, expected GAZE"),
    (lambda text: text.replace("EFIX", "EXXX"), {"start": "PLAY (.+)"}, "has no fixations .EFIX., only samples"),
    (lambda text: "frame,x,y\n0,1,2\n", {"start": "PLAY (.+)"}, "has no line START"),
    (lambda text: text.replace(" 0 0 1919", " 10 0 1919"), {"start": "PLAY (.+)"}, "the screen begins at 10, 0"),
  ],
)
def test_eyelink_files_that_cannot_be_used_are_refused_in_a_line(tmp_path, change, asked, message):
  path = write(tmp_path / "a.asc", change(ASC))
  with pytest.raises(ListingError, match=message) as raised:
    eyelink.read_eyelink([path], Asked(**asked))
  assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value)


PRO_LAB = {
  "time": "Recording timestamp [ms]", "who": "Participant name", "recording": "Recording name",
  "width": "Recording resolution width [DACS px]", "height": "Recording resolution height [DACS px]",
  "event": "Event", "value": "Event value", "media": "Presented Media name", "kind": "Eye movement type",
  "duration": "Gaze event duration [ms]", "index": "Eye movement type index",
  "x": "Fixation point X [MCS norm]", "y": "Fixation point Y [MCS norm]",
}  # fmt: skip
OLD_PRO_LAB = {
  **PRO_LAB, "time": "Recording timestamp", "duration": "Gaze event duration", "width": "Recording resolution width",
  "height": "Recording resolution height", "x": "Fixation point X (MCSnorm)", "y": "Fixation point Y (MCSnorm)",
}  # fmt: skip
STUDIO = {
  **OLD_PRO_LAB, "time": "RecordingTimestamp", "who": "ParticipantName", "recording": "RecordingName",
  "event": "StudioEvent", "value": "StudioEventData", "media": "MediaName", "kind": "GazeEventType",
  "duration": "GazeEventDuration", "index": "FixationIndex", "x": "FixationPointX (MCSpx)",
  "y": "FixationPointY (MCSpx)", "width": "RecordingResolution",
}  # fmt: skip


def tobii_rows(starts="VideoStimulusStart", ends="VideoStimulusEnd", places=((0.25, 0.5), (0.75, 1.25)), scale=1):
  """Two fixations of 100 ms, of which the first begins 50 ms before the video; samples every 25 ms."""
  rows = []
  for k in range(12):
    time = 1000 + 25 * k
    row = {"time": time * scale, "who": "Anna", "recording": "R1", "width": 1920, "height": 1080}
    row["media"] = "film.mp4" if k >= 2 else ""
    which = 0 if k < 4 else 1 if 5 <= k < 9 else None
    row["kind"] = "Saccade" if which is None else "Fixation"
    if which is not None:
      row |= {"duration": 100, "index": which + 1, "x": places[which][0], "y": places[which][1]}
    rows.append(row)
  event = {"who": "Anna", "recording": "R1", "value": "film.mp4"}
  rows.insert(2, {**event, "time": 1050 * scale, "event": starts})
  rows.append({**event, "time": 1275 * scale, "event": ends})
  return rows


def write_tobii(path, names, rows, encoding="utf-8", comma=False):
  keys = list(dict.fromkeys(names))
  lines = ["\t".join(names[key] for key in keys)]
  for row in rows:
    cells = [str(row.get(key, "")) for key in keys]
    lines.append("\t".join(cell.replace(".", ",") if comma and key in "xy" else cell for key, cell in zip(keys, cells)))
  return write(path, "\r\n".join(lines) + "\r\n", encoding)


@pytest.mark.parametrize(
  ("names", "encoding", "comma", "scale", "said"),
  [
    (PRO_LAB, "utf-8-sig", False, 1, "times in ms, as the column says"),
    (PRO_LAB, "utf-16", True, 1, "times in ms, as the column says"),
    ({**PRO_LAB, "time": "Recording timestamp [μs]"}, "utf-8", False, 1000, "times in μs, as the column says"),
    (OLD_PRO_LAB, "utf-16", False, 1, "times in ms, found by the durations"),
    (OLD_PRO_LAB, "utf-8", True, 1000, "times in µs, found by the durations"),
  ],
)
def test_tobii_pro_lab_in_several_versions_and_countries(tmp_path, names, encoding, comma, scale, said):
  path = write_tobii(tmp_path / "all.tsv", names, tobii_rows(scale=scale), encoding, comma)
  found = tobii.read_tobii([path], Asked())
  assert found.tables == {"film": [(0.0, 0.05, 0.25, 0.5, "Anna"), (0.075, 0.1, 0.75, 1.25, "Anna")]}
  assert found.units == ("--units", "normalised") and said in " ".join(found.said)


def test_tobii_studio_has_other_names_and_pixels(tmp_path):
  rows = [{**row, "width": "1920 x 1080"} for row in tobii_rows("MovieStart", "MovieEnd", ((300, 200), (500, 400)))]
  path = write_tobii(tmp_path / "all.tsv", STUDIO, rows)
  found = tobii.read_tobii([path], Asked())
  assert found.units == ("--units", "pixels") and found.tables["film"][0] == (0.0, 0.05, 300.0, 200.0, "Anna")
  on_screen = {**STUDIO, "x": "FixationPointX (ADCSpx)", "y": "FixationPointY (ADCSpx)"}
  found = tobii.read_tobii([write_tobii(tmp_path / "all.tsv", on_screen, rows)], Asked())
  assert found.units == ("--units", "screen", "--screen", "1920x1080")


def test_tobii_without_events_begins_with_the_first_sample_of_the_video(tmp_path):
  rows = [row for row in tobii_rows() if "event" not in row]
  rows[0]["media"] = rows[1]["media"] = "instruction.png"
  found = tobii.read_tobii([write_tobii(tmp_path / "a.tsv", PRO_LAB, rows)], Asked())
  assert list(found.tables) == ["film"] and found.tables["film"][0][:2] == (0.0, 0.05)
  assert "no event says when a video began" in " ".join(found.said)


@pytest.mark.parametrize(
  ("names", "rows", "message"),
  [
    ({key: name for key, name in PRO_LAB.items() if key not in "xy"}, None, "lacks the columns Fixation point X:"),
    ({**PRO_LAB, "kind": "Sensor", "media": "Text"}, None, "lacks the columns Eye movement type, Presented Media name"),
    (PRO_LAB, [{"time": 1, "kind": "Saccade"}], "has no fixation: export it with a fixation filter"),
    (OLD_PRO_LAB, tobii_rows(scale=7), "the unit of Recording timestamp is not known"),
  ],
)
def test_tobii_tables_that_cannot_be_used_are_refused_in_a_line(tmp_path, names, rows, message):
  path = write_tobii(tmp_path / "a.tsv", names, rows or tobii_rows())
  with pytest.raises(ListingError, match=message) as raised:
    tobii.read_tobii([path], Asked())
  assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value)


CORE = (
  "id,start_timestamp,duration,start_frame_index,end_frame_index,norm_pos_x,norm_pos_y,dispersion,confidence,method"
)


def make_core(folder, rows=("1,10.1,120.5,100,102,0.25,0.75,1.2,0.98,gaze", "2,10.4,99,110,110,1.5,nan,1,1,gaze")):
  write(folder / "fixations.csv", "\n".join([CORE, *rows]) + "\n")
  write(folder / "export_info.csv", "key,value\nPlayer Software Version,3.5.1\nFrame Index Range:,100 - 400\n")
  write(folder / "world.mp4", "not read here")
  return folder


def test_pupil_core_counts_frames_from_the_start_of_the_export(tmp_path):
  folder = make_core(tmp_path / "anna" / "exports" / "000")
  found = pupil.read_core(tmp_path, folder.iterdir(), Asked())
  assert found.tables == {"anna/exports/000/world": [(i, 0.25, 0.75, "anna/exports/000") for i in range(3)]}
  assert found.units == ("--units", "normalised", "--origin", "bottom") and found.lost == {
    "that have no place or time": 1
  }
  (folder / "export_info.csv").unlink()
  with pytest.raises(ListingError, match=r"export_info.csv: no such file, expected that of the export"):
    pupil.read_core(tmp_path, folder.iterdir(), Asked())


def make_cloud(folder):
  begin = 1_700_000_000_000_000_000
  stamps = [begin + i * 40_000_000 for i in range(10)]
  header = "section id,recording id,fixation id,start timestamp [ns],end timestamp [ns],duration [ms]"
  rows = [f"s,r,1,{begin + 45_000_000},{begin + 121_000_000},76,800.5,600.25,1,2"]
  write(
    folder / "fixations.csv",
    "\n".join([f"{header},fixation x [px],fixation y [px],azimuth [deg],elevation [deg]", *rows]),
  )
  write(
    folder / "world_timestamps.csv",
    "\n".join(["section id,recording id,timestamp [ns]", *(f"s,r,{t}" for t in stamps)]),
  )
  write(folder / "0a1b_0.0-60.1.mp4", "not read here")
  return folder


def test_pupil_cloud_finds_the_frames_by_their_times(tmp_path):
  folder = make_cloud(tmp_path / "ben")
  found = pupil.read_cloud(tmp_path, folder.iterdir(), Asked())
  # From 45 to 121 ms: the frames of 40, 80 and 120 ms were seen.
  assert found.tables == {"ben/0a1b_0.0-60.1": [(i, 800.5, 600.25, "ben") for i in (1, 2, 3)]}
  assert found.units == ("--units", "pixels")


def test_pupil_exports_that_cannot_be_used_are_refused_in_a_line(tmp_path):
  core, cloud = make_core(tmp_path / "core"), make_cloud(tmp_path / "cloud")
  with pytest.raises(ListingError, match=r"lacks the columns start timestamp .*; it is of --tracker pupil-core"):
    pupil.read_cloud(tmp_path, core.iterdir(), Asked())
  (cloud / "fixations.csv").rename(cloud / "gaze_positions.csv")
  with pytest.raises(ListingError, match=r"gaze_positions\.csv: has samples only, expected fixations\.csv"):
    pupil.read_core(tmp_path, cloud.iterdir(), Asked())
  write(cloud / "fixations.csv", "recording id,fixation detected in reference image,fixation x [px]\n")
  with pytest.raises(ListingError, match="has fixations on a reference image"):
    pupil.read_cloud(tmp_path, cloud.iterdir(), Asked())


def write_gzip(path, rows):
  path.write_bytes(gzip.compress("".join("\t".join(map(str, row)) + "\n" for row in rows).encode()))


def make_bids(root, fixations=True, units="pixel", eyes=("left",)):
  folder = root / "sub-01" / "beh"
  folder.mkdir(parents=True)
  for number_of_eye, eye in enumerate(eyes, start=1):
    base = folder / f"sub-01_task-watch_recording-eye{number_of_eye}"
    times = range(5000, 5400, 2)  # 500 Hz, in ms; the eye is lost for a while
    write_gzip(
      base.with_name(f"{base.name}_physio.tsv.gz"),
      [(t, "n/a" if 5200 <= t < 5220 else 100 + (t - 5000) / 2, 300.5, 900) for t in times],
    )
    about = {
      "PhysioType": "eyetrack", "SamplingFrequency": 500, "StartTime": -0.1, "RecordedEye": eye,
      "Columns": ["timestamp", "x_coordinate", "y_coordinate", "pupil_size"],
      "timestamp": {"Units": "ms"}, "x_coordinate": {"Units": units}, "y_coordinate": {"Units": units},
      "SampleCoordinateSystem": "gaze-on-screen",
    }  # fmt: skip
    base.with_name(f"{base.name}_physio.json").write_text(json.dumps(about))
    if fixations:
      rows = [(5000, 0.2, "fixation", 0), (5200, 0.02, "fixation", 0), (5300, 0.05, "saccade", 0)]
      write_gzip(base.with_name(f"{base.name}_physioevents.tsv.gz"), rows)
      columns = json.dumps({"Columns": ["onset", "duration", "trial_type", "blink"]})
      base.with_name(f"{base.name}_physioevents.json").write_text(columns)
  events = "onset\tduration\ttrial_type\tstim_file\n-0.05\t0.04\tfix\tn/a\n0.0\t2.0\tvideo\tvideos/film.mp4\n"
  write(folder / "sub-01_task-watch_events.tsv", events)
  screen = {"StimulusPresentation": {"ScreenResolution": [1280, 720], "ScreenOrigin": ["top", "left"]}}
  (root / "task-watch_events.json").write_text(json.dumps(screen))  # inherited
  return sorted(folder.iterdir())


def test_bids_fixations_are_placed_by_their_samples(tmp_path):
  found = bids.read_bids(tmp_path, make_bids(tmp_path), Asked())
  # Samples 5000 to 5198 have x from 100 to 199; the run begins at 5100, and 0.1 s of the fixation was before the video.
  assert found.tables == {"film": [(0.0, 0.1, pytest.approx(np.mean(np.arange(100, 200))), 300.5, "sub-01")]}
  assert found.units == ("--units", "screen", "--screen", "1280x720") and found.lost == {"that have no place": 1}


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"fixations": False}, "has samples only, expected sub-01_task-watch_recording-eye1_physioevents.tsv.gz"),
    ({"units": "degree"}, "x_coordinate has the unit 'degree', expected pixel"),
    ({"eyes": ("left", "right")}, "both eyes were tracked: expected --eye left or --eye right"),
  ],
)
def test_bids_data_that_cannot_be_used_are_refused_in_a_line(tmp_path, changes, message):
  with pytest.raises(ListingError, match=message) as raised:
    bids.read_bids(tmp_path, make_bids(tmp_path, **changes), Asked())
  assert "\n" not in str(raised.value)


def test_bids_takes_the_eye_that_is_asked_for(tmp_path):
  found = bids.read_bids(tmp_path, make_bids(tmp_path, eyes=("left", "right")), Asked("right"))
  assert len(found.tables["film"]) == 1


def test_stretches_share_a_fixation():
  gathered = Gathered()
  gathered.add_shown([Fixation(1, 3, 5, 6), Fixation(9, 10, 0, 0)], [Shown("a", 0, 2), Shown("b", 2, 8)], "v")
  assert gathered.tables == {"a": [(1, 1, 5, 6, "v")], "b": [(0, 1, 5, 6, "v")]}
  assert gathered.lost == {"while no video was shown": 1}


@pytest.mark.parametrize(("text", "value"), [("1,5", 1.5), (" -2.25 ", -2.25), (".", None), ("", None), ("nan", None)])
def test_numbers_of_trackers(text, value):
  assert number(text) == value


def test_names_of_videos_are_plain(tmp_path):
  assert video_name('"C:\\films\\a b.MP4"', tmp_path) == "a b" and video_name("v1.2", tmp_path) == "v1.2"
  with pytest.raises(ListingError, match=r"video '\.\.'"):
    video_name("..", tmp_path)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (
      ["--tracker", "tobi"],
      "--tracker tobi: expected one of bids, eyelink, pupil-cloud,",
    ),
    (["--tracker", "tobii"], "no file of tobii (.tsv, .txt) is here"),
    (["--tracker", "bids"], "of eye tracking (PhysioType eyetrack) is in this folder"),
    (["--tracker", "tobii", "--video", "x"], "belong to eyelink, not to tobii"),
    (["--tracker", "eyelink", "--start-message", "("], "expected a regular expression"),
  ],
)
def test_the_command_refuses_in_one_line(tmp_path, capsys, arguments, message):
  (tmp_path / "in").mkdir()
  try:
    code = console.main(["prepare", "gaze", "--root", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *arguments])
  except SystemExit as stop:
    code = stop.code
  out, error = capsys.readouterr()
  assert code == 2 and not out and error.count("\n") == 1 and message in error
  assert not (tmp_path / "out").exists()


def test_from_a_tracker_to_a_tree_that_is_scored(tmp_path, capsys):
  """The whole way: .asc → tables → tree. The screen is wider than the picture, which has bars at its sides."""
  media = pytest.importorskip("helpers.media_files")
  (tmp_path / "videos").mkdir()
  media.write_video(tmp_path / "videos" / "clip_a.mp4", media.moving(10))
  write(tmp_path / "asc" / "anna.asc", ASC)
  asked = ["--root", str(tmp_path / "asc"), "--tracker", "eyelink", "--start-message", "PLAY (.+)"]
  assert console.main(["prepare", "gaze", *asked, "--out", str(tmp_path / "tables")]) == 0
  said = capsys.readouterr().out
  assert "--units screen --screen 1920x1080" in said and "2 tables, 3 rows" in said
  with (tmp_path / "tables" / "clip_a.csv").open(newline="") as file:
    assert list(csv.reader(file))[:2] == [
      ["time", "duration", "x", "y", "viewer"],
      ["0.0", "0.199", "960.5", "540.2", "anna"],
    ]
  options = ["--tables", str(tmp_path / "tables"), "--units", "screen", "--screen", "1920x1080"]
  tree = tmp_path / "tree"
  assert console.main(["prepare", "videos", "--root", str(tmp_path / "videos"), *options, "--out", str(tree)]) == 0
  (video,) = read_tree(tree).videos
  assert video.annotated == [0, 1]  # 0 to 199 ms at ten frames a second
  assert np.argwhere(video.fixations(0)).tolist() == [[24, 32]]  # the middle of the screen is that of the picture
