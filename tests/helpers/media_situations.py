"""The corpus of media situations: those of `helpers.media_corpus`, edits, programs, pictures, channels, refusals."""

import io
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from PIL import Image

from helpers.edit_lists import Edit, edit
from helpers.media_corpus import CONTAINERS, FLASHES, MJPEG, PCM, Situation, frames_at, plain, shifted, usual
from helpers.media_files import clicks, write_video
from helpers.transport import join_programs, program, write_radio

Write = Callable[[Path], object]
TENTHS = [number / 10 for number in range(30)]
TAGS = {"HDR by PQ": (9, 1, 16, 9), "HDR by HLG": (9, 1, 18, 9), "BT.2020 for usual displays": (9, 1, 14, 9),
        "limited range": (1, 1, 1, 1), "full range": (1, 2, 1, 1), "no tags": (2, 0, 2, 2)}  # fmt: skip
"""The matrix, the range, the transfer and the primaries that a file states, by their numbers in ISO/IEC 23091-2."""


def edited(picture: list[Edit] | None, sound: list[Edit] | None, **settings) -> Write:
  """Returns a function that writes an MP4 file with edit lists; frames are not reordered unless asked for."""
  settings.setdefault("options", {"bf": "0"})
  return lambda path: edit(usual(path, **settings), picture, sound)


def recordings(*parts: dict) -> Write:
  """Returns a function that writes recordings one after the other into one file."""

  def write(path: Path) -> None:
    made = [usual(path.with_name(f"{number}{path.suffix}"), **part) for number, part in enumerate(parts)]
    path.write_bytes(b"".join(one.read_bytes() for one in made))

  return write


def programs(*kinds: str) -> Write:
  """Returns a function that writes programs in this order: `usual`, `other` flashes, `silent` or `radio`."""

  def write(path: Path) -> None:
    parts = dict[int, Path]()
    for number, kind in enumerate(kinds, 1):
      parts[number] = path.with_name(f"program{number}.ts")
      flashes = (1.0,) if kind == "other" else FLASHES
      sound = clicks(3, list(flashes), 48000)
      if kind == "radio":
        write_radio(parts[number], number, clicks(3, [0.2], 48000))
      else:
        heard = {} if kind == "silent" else {"sound": sound, "sound_rate": 48000}
        write_video(parts[number], frames_at(TENTHS, flashes), TENTHS, container=program(number), **heard)
    join_programs(path, parts)

  return write


def few_stamps(path: Path) -> None:
  """Writes small pictures of which several share a packet of the container, so that only the first one has a stamp."""
  times = [number / 25 for number in range(75)]
  noise = np.random.default_rng(0).integers(-10, 11, (75, 32, 48, 3))
  frames = np.clip(frames_at(times) + noise, 0, 255).astype(np.uint8)
  sound = {"sound": clicks(3, list(FLASHES), 48000), "sound_codec": "mp2", "sound_rate": 48000}
  write_video(path, frames, times, rate=25, clock=Fraction(1, 25), **sound)


def tagged(tags: str, width: int = 64) -> Write:
  """Returns a function that writes three frames of one colour whose stream has tags."""

  def write(path: Path) -> None:
    frame = av.VideoFrame(width, 16, "yuv420p")
    for plane, value in zip(frame.planes, (120, 110, 140)):
      plane.update(bytes([value]) * plane.buffer_size)
    frame.colorspace, frame.color_range, frame.color_trc, frame.color_primaries = TAGS[tags]
    with av.open(str(path), "w") as file:
      stream = file.add_stream("ffv1", rate=10)
      stream.width, stream.height, stream.pix_fmt = width, 16, "yuv420p"
      context = stream.codec_context
      context.colorspace, context.color_range, context.color_trc, context.color_primaries = TAGS[tags]
      for number in range(3):
        frame.pts, frame.time_base = number, Fraction(1, 10)
        file.mux(stream.encode(frame))
      file.mux(stream.encode(None))

  return write


def coloured(tags: str, colour: tuple[int, int, int], width: int = 64, notes: str = "") -> Situation:
  """Returns a silent file of one colour with tags, and the colour that it is to have by the standards' equations."""
  size, flashes = (width, 16), (0.0,) * (sum(colour) > 360)  # as the test takes bright frames
  return Situation(tagged(tags, width), ".mkv", flashes, (), 0.3, is_silent=True, notes=notes, colour=colour, size=size)


def two_pictures(path: Path) -> None:
  """Writes two video streams, of which the second is the default one and has the usual flashes."""
  with av.open(str(path), "w") as file:
    streams = [file.add_stream("ffv1", rate=10) for _ in range(2)]
    for stream, disposition in zip(streams, (Disposition(0), Disposition.default)):
      stream.height, stream.width, stream.pix_fmt, stream.disposition = 32, 48, "bgr0", disposition
    for number, frames in enumerate(zip(frames_at(TENTHS, ()), frames_at(TENTHS))):
      for stream, frame in zip(streams, frames):
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")
        picture.pts, picture.time_base = number, Fraction(1, 10)
        file.mux(stream.encode(picture))
    for stream in streams:
      file.mux(stream.encode(None))


def two_sounds(path: Path) -> None:
  """Writes a comment without beeps before the usual sound."""
  one = usual(path.with_name(f"one{path.suffix}"), **PCM)
  other = usual(path.with_name(f"other{path.suffix}"), sound=np.zeros((1, 48000), np.float32), **PCM)
  with av.open(str(one)) as source, av.open(str(other)) as comments, av.open(str(path), "w") as target:
    parts = [source.streams.video[0], comments.streams.audio[0], source.streams.audio[0]]
    streams = [target.add_stream_from_template(part) for part in parts]
    streams[1].disposition, streams[2].disposition = Disposition.comment, Disposition(0)
    for part, stream in zip(parts, streams):
      for packet in part.container.demux(part) if part is not parts[2] else _again(one):
        if packet.dts is not None:
          packet.stream = stream
          target.mux(packet)


def _again(path: Path) -> list[av.Packet]:
  with av.open(str(path)) as container:
    return list(container.demux(audio=0))


def listed_channels(path: Path) -> None:
  """Writes four channels of which the file says left, right, left, right: PyAV frees such a list twice."""
  content = usual(path, channels=4, **PCM | {"codec": "mjpeg", "pixels": "yuvj420p"}).read_bytes()
  at = content.index(b"chan", content.index(b"stsd")) - 4
  (size,) = struct.unpack(">I", content[at : at + 4])
  listed = b"".join(struct.pack(">II12x", label, 0) for label in (1, 2, 1, 2))
  box = struct.pack(">I4s4xIII", 24 + len(listed), b"chan", 0, 0, 4) + listed
  changed = bytearray(content[:at] + box + content[at + size :])
  for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"sowt"):
    place = changed.rindex(name, 0, at) - 4
    (old,) = struct.unpack(">I", changed[place : place + 4])
    changed[place : place + 4] = struct.pack(">I", old + len(box) - size)
  path.write_bytes(changed)


def photo(path: Path) -> None:
  """Writes a picture with a white box, which EXIF data turn by a quarter to the right: from top left to top right."""
  picture, exif = np.full((24, 32, 3), 16, np.uint8), Image.Exif()
  picture[:12, :16], exif[0x0112] = 230, 6
  Image.fromarray(picture).save(path, exif=exif, quality=95)


def changing_size(path: Path) -> None:
  """Writes frames of which the second half has another size, as broadcasts change it."""
  frames = [frames_at(TENTHS), frames_at(TENTHS, side=64)]
  with av.open(str(path), "w") as file:
    stream = file.add_stream("mjpeg", rate=10)
    stream.height, stream.width, stream.pix_fmt, stream.time_base = 32, 48, "yuvj420p", Fraction(1, 10)
    for number in range(30):
      content = io.BytesIO()
      Image.fromarray(frames[number >= 15][number]).save(content, "jpeg")
      packet = av.Packet(content.getvalue())
      packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 10), True
      packet.pts, packet.dts, packet.duration = number, number, 1
      file.mux(packet)


def cut_off(write: Write, share: float) -> Write:
  """Returns a function that writes a file of which only the beginning is there."""

  def shorten(path: Path) -> None:
    write(path)
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])

  return shorten


def without_first_key_frame(path: Path) -> None:
  """Writes a file that begins between key frames, one a second."""
  dropped = lambda kind, time: None if kind == "video" and time < 0.05 else 0.0  # noqa: E731
  shifted(path, dropped, ".ts", options={"g": "10", "bf": "0", "sc_threshold": "0"})


def of_sound(path: Path, cover: bool = False) -> None:
  """Writes a file that has no picture, or only a cover."""
  with av.open(str(path), "w") as file:
    stream = file.add_stream("aac", rate=16000, layout="mono")
    if cover:
      picture = file.add_stream("png", rate=1)
      picture.height, picture.width, picture.pix_fmt, picture.disposition = 8, 8, "rgb24", Disposition.attached_pic
      file.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((8, 8, 3), np.uint8), format="rgb24")))
    wave = av.AudioFrame.from_ndarray(clicks(1, [0.5], 16000), format="fltp", layout="mono")
    wave.sample_rate, wave.pts = 16000, 0
    for packet in stream.encode(wave) + stream.encode(None):
      file.mux(packet)


def refused(write: Write, suffix: str, word: str) -> Situation:
  """Returns a file that is refused with a word in the reason."""
  return Situation(write, suffix, refused=word)


def moved(write: Write, **expected) -> Situation:
  """Returns an MP4 file whose parts are shown at other times."""
  return Situation(write, ".mp4", **expected)


BOTH_LATE: list[Edit] = [(0.5, None), (3, 0)]
LATE_START: list[Edit] = [(2.7, 0.3)]
CUT: list[Edit] = [(0.8, 0), (1.6, 1.4)]
TWICE: list[Edit] = [(1, 0), (1, 0), (2, 1)]
EXCHANGED: list[Edit] = [(1.5, 1.5), (1.5, 0)]
MPEG = {"codec": "mpeg2video", "sound_codec": "mp2", "rate": 25, "clock": Fraction(1, 25)}
WEBM = {"codec": "libvpx", "sound_codec": "libopus"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}

CORPUS: dict[str, Situation] = CONTAINERS | {
  # Edit lists.
  "mp4, edited: the picture begins later": moved(edited(BOTH_LATE, None), beeps=(0.0, 1.2)),
  "mp4, edited: the sound begins later": moved(edited(None, BOTH_LATE), beeps=(1.0, 2.2)),
  "mp4, edited: both begin later": moved(edited(BOTH_LATE, BOTH_LATE)),
  "mp4, edited: the start is cut": moved(edited(LATE_START, LATE_START), flashes=(0.2, 1.4), duration=2.7),
  "mp4, edited: the start of the picture is cut": moved(
    edited(LATE_START, None), flashes=(0.2, 1.4), beeps=(0.5, 1.7), duration=2.7
  ),
  "mp4, edited: the start of the sound is cut": moved(edited(None, LATE_START), beeps=(0.2, 1.4)),
  "mp4, edited: the start is cut, frames are reordered": moved(
    edited(LATE_START, LATE_START, options={}), flashes=(0.2, 1.4), duration=2.7
  ),
  "mp4, edited: the end is cut": moved(edited([(1, 0)], [(1, 0)]), flashes=(0.5,), duration=1.0),
  "mp4, edited: the middle is cut": moved(edited(CUT, CUT), flashes=(0.5, 1.1), duration=2.4),
  "mp4, edited: a part is shown twice": moved(edited(TWICE, TWICE), flashes=(0.5, 1.5, 2.7), duration=4.0),
  "mp4, edited: parts are exchanged": moved(edited(EXCHANGED, EXCHANGED), flashes=(0.2, 2.0)),
  "mp4, in fragments": Situation(lambda path: usual(path, container=FRAGMENTS), ".mp4"),
  "mp4, in fragments, begins late": Situation(lambda path: usual(path, at=50, container=FRAGMENTS), ".mp4"),
  # Files of which a part is missing.
  "webm, cut off": Situation(
    cut_off(lambda path: usual(path, **WEBM), 0.6), ".webm", duration=1.8, notes="states 3.01 s, but ends at"
  ),
  "mp4, cut off": Situation(
    cut_off(lambda path: write_video(path, frames_at(TENTHS), container={"movflags": "+faststart"}), 0.95),
    ".mp4",
    duration=None,
    is_silent=True,
    notes="states 3.00 s, but ends at",
  ),
  "ts, begins between key frames": Situation(
    without_first_key_frame, ".ts", (0.7,), duration=2.0, notes="its first 0.90 s cannot be decoded"
  ),
  "ogv, vp8 and opus": plain(".ogv", "libvpx", "yuv420p", "libopus", clock=Fraction(1, 10)),
  "mov, prores with transparency": plain(".mov", "prores_ks", "yuva444p10le", "pcm_s24le"),
  # Programs and joined recordings.
  "ts, two programs": Situation(programs("usual", "other"), ".ts", notes="stream 1 of 2"),
  "ts, two programs, the other first": Situation(programs("other", "usual"), ".ts", (1.0,), notes="stream 1 of 2"),
  "ts, radio before television": Situation(programs("radio", "usual"), ".ts", notes="stream 2 of 2"),
  "ts, sound in another program only": Situation(
    programs("radio", "silent"), ".ts", is_silent=True, notes="the picture's program has none"
  ),
  "ts, joined, sound begins late in the second": Situation(
    recordings({}, {"sound_at": 0.3}), ".ts", (0.5, 1.7, 3.5, 4.7), duration=None, notes="starts again 1×", slack=0.12
  ),
  "ts, joined after a gap of 20 s": Situation(
    recordings({}, {"at": 23.0}), ".ts", (0.5, 1.7, 3.5, 4.7), duration=None, notes="starts again 1×", slack=0.1
  ),
  "ts, joined with streams of other numbers": Situation(
    recordings({}, {"container": {"mpegts_start_pid": "400"}}), ".ts", notes="stream 1 of 2"
  ),
  "mkv, two files joined": Situation(
    recordings({}, {}), ".mkv", (0.5, 1.7, 3.5, 4.7), duration=None, notes="starts again 1×", slack=0.1
  ),
  "webm, two files joined": Situation(
    recordings(WEBM, WEBM),
    ".webm",
    (0.5, 1.7, 3.5, 4.7),
    duration=None,
    notes="starts again 1×",
    slack=0.1,
  ),
  "mkv, sent live": Situation(lambda path: usual(path, container={"live": "1"}, **MJPEG), ".mkv"),
  "mpg, mpeg2 and mp2": Situation(lambda path: usual(path, **MPEG), ".mpg"),
  "mpg, few frames have stamps": Situation(few_stamps, ".mpg"),
  "vob, mpeg2 and mp2": Situation(lambda path: usual(path, **MPEG), ".vob"),
  # Colours and shapes.
  "mkv, HDR by PQ": coloured("HDR by PQ", (253, 133, 57), notes="HDR (PQ) is tone-mapped"),
  "mkv, HDR by HLG": coloured("HDR by HLG", (171, 129, 93), notes="HDR (HLG) is tone-mapped"),
  "mkv, BT.2020 for usual displays": coloured(
    "BT.2020 for usual displays", (156, 113, 76), notes="wide gamut (BT.2020)"
  ),
  "mkv, limited range": coloured("limited range", (143, 119, 83)),
  "mkv, full range": coloured("full range", (139, 118, 87)),
  "mkv, a small picture without tags": coloured("no tags", (140, 118, 85)),
  "mkv, an HD picture without tags": coloured("no tags", (143, 119, 83), width=1280),
  "avi, the size changes": Situation(
    changing_size, ".avi", is_silent=True, notes="its size changes from 48×32 to 80×64"
  ),
  "mkv, 10 bits": Situation(lambda path: usual(path, **PCM | {"pixels": "yuv420p10le"}), ".mkv"),
  "mkv, grey": Situation(lambda path: usual(path, **PCM | {"pixels": "gray"}), ".mkv"),
  "mkv, transparency": Situation(lambda path: usual(path, **PCM | {"pixels": "bgra"}), ".mkv"),
  "mp4, interlaced": Situation(
    lambda path: usual(path, codec="libx264", options={"flags": "+ildct+ilme"}), ".mp4", times=tuple(TENTHS)
  ),
  "mp4, a cover": Situation(lambda path: usual(path, cover=b""), ".mp4", size=(48, 32)),
  "mkv, two pictures": Situation(two_pictures, ".mkv", is_silent=True, notes="stream 2 of 2"),
  "png, one picture": Situation(
    lambda path: Image.fromarray(np.full((24, 32, 3), 90, np.uint8)).save(path),
    ".png",
    (),
    duration=None,
    is_silent=True,
    colour=(90, 90, 90),
    size=(32, 24),
  ),
  "jpg, turned by EXIF": Situation(photo, ".jpg", (), duration=None, is_silent=True, corner=(0, 1), size=(24, 32)),
  # Channels.
  "mkv, a comment before the sound": Situation(two_sounds, ".mkv", notes="stream 2 of 2"),
  "mov, channels listed one by one": Situation(listed_channels, ".mov"),
  "mkv, four channels": Situation(lambda path: usual(path, channels=4, **PCM), ".mkv"),
  # Files that cannot be shown.
  "m4a, no picture": refused(of_sound, ".m4a", "has no video stream"),
  "mp4, only a cover": refused(lambda path: of_sound(path, True), ".mp4", "has no video stream"),
  "mp4, empty": refused(lambda path: path.touch(), ".mp4", "is empty"),
  "mp4, text": refused(lambda path: path.write_text("hello\n" * 100), ".mp4", "is not a media file"),
  "mp4, an index alone": refused(lambda path: path.write_bytes(usual(path).read_bytes()[:400]), ".mp4", "a.mp4"),
  "m3u8, a playlist": refused(
    lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\nb.ts\n#EXT-X-ENDLIST\n"), ".m3u8", "is not a media file"
  ),
  "png, 20000 pixels wide": refused(lambda path: Image.new("1", (20000, 4)).save(path), ".png", "20000×4"),
}


def describe(situation: Situation) -> str:
  """Returns what a situation gives, as `docs/situations.md` says it."""
  if situation.refused is not None:
    return f"refused: {situation.refused}"
  words = []
  if situation.flashes:
    words.append("flashes at " + ", ".join(f"{flash:g}" for flash in situation.flashes) + " s")
  if situation.is_silent:
    words.append("no sound")
  elif situation.beeps is not None:
    words.append("beeps at " + ", ".join(f"{beep:g}" for beep in situation.beeps) + " s")
  else:
    words.append("beeps in sync")
  if situation.duration is not None:
    words.append(f"{situation.duration:g} s")
  if situation.size is not None:
    words.append("{}×{} pixels".format(*situation.size))
  if situation.colour is not None:
    words.append("colour {}, {}, {}".format(*situation.colour))
  if situation.corner is not None:
    words.append(f"the box is {('top', 'bottom')[situation.corner[0]]} {('left', 'right')[situation.corner[1]]}")
  if situation.notes:
    words.append(f"note: {situation.notes}")
  return ", ".join(words)
