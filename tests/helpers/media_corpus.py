"""Media situations: small files with flashes and beeps at known times, each generated; containers, codecs, clocks."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from helpers.media_files import CLOCK, clicks, write_stamped, write_video

RATE = 10
FLASHES = (0.5, 1.7)


@dataclass(frozen=True)
class Situation:
  """A file and what it shows and sounds.

  Attributes:
    write: Writes the file of a path.
    suffix: The suffix of the file.
    flashes: When its frames turn white, in seconds from the first frame.
    beeps: When its sound begins to be heard; None where they are the flashes.
    duration: The seconds that the picture lasts; None where that is not checked.
    times: The times of all frames; None where only flashes are checked.
    corner: The corner (row, column) of a white box, each 0 or 1, in files that are turned.
    is_silent: Whether there is no sound that can be heard.
    notes: A word of the notes that reading gives; empty where there shall be none.
    slack: How far flashes may be from their times, seconds; recordings that are joined follow each other's sound.
    colour: The colour (red, green, blue) of the middle of the first frame.
    size: The width and the height of the frames.
    refused: A word of the reason why the file is refused; None where it is shown.
  """

  write: Callable[[Path], object]
  suffix: str
  flashes: tuple[float, ...] = FLASHES
  beeps: tuple[float, ...] | None = None
  duration: float | None = 3.0
  times: tuple[float, ...] | None = None
  corner: tuple[int, int] | None = None
  is_silent: bool = False
  notes: str = ""
  slack: float = 0.04
  colour: tuple[int, int, int] | None = None
  size: tuple[int, int] | None = None
  refused: str | None = None


def frames_at(times: list[float], flashes: tuple[float, ...] = FLASHES, side: int = 32) -> np.ndarray:
  """Returns frames (n, side, side + 16, 3): white for a fifth of a second from each flash on, else dark."""
  is_white = [any(flash - 1e-6 <= time < flash + 0.2 for flash in flashes) for time in times]
  return np.array(is_white, np.uint8)[:, None, None, None] * np.full((1, side, side + 16, 3), 230, np.uint8) + 16


def usual(path: Path, seconds: float = 3.0, at: float = 0.0, sound_at: float | None = None, **settings) -> Path:
  """Writes the usual flashes and beeps; the picture begins at one time on the file's clock, the sound at another."""
  frame_rate = settings.setdefault("rate", RATE)
  times = [number / frame_rate for number in range(round(seconds * frame_rate))]
  rate = settings.setdefault("sound_rate", 48000)
  channels = settings.pop("channels", 1)
  sound_at = at if sound_at is None else sound_at
  beeps = [flash + at - sound_at for flash in FLASHES if flash + at - sound_at >= 0]
  sound = settings.pop("sound", None)
  if sound is None:
    sound = clicks(seconds + at - sound_at, beeps, rate, channels)
  return write_video(
    path, frames_at(times), [time + at for time in times], sound=sound, sound_start=sound_at, **settings
  )


def plain(
  suffix: str, codec: str, pixels: str, sound: str, rate: int = 48000, channels: int = 1, **options
) -> Situation:
  """Returns the usual flashes and beeps in a container with two codecs."""
  settings = {
    "codec": codec,
    "pixels": pixels,
    "sound_codec": sound,
    "sound_rate": rate,
    "channels": channels,
    **options,
  }
  return Situation(lambda path: usual(path, **settings), suffix)


def joined(path: Path, count: int = 2, **settings) -> None:
  """Writes recordings one after the other, each with a clock of its own."""
  one = usual(path.with_name(f"one{path.suffix}"), **settings)
  path.write_bytes(one.read_bytes() * count)


def joined_back(path: Path) -> None:
  """Writes two recordings, of which the second has an earlier clock."""
  parts = [usual(path.with_name(f"{at}.ts"), at=at) for at in (500.0, 100.0)]
  path.write_bytes(b"".join(part.read_bytes() for part in parts))


def shifted(path: Path, shifts: Callable[[str, float], float | None], suffix: str, **settings) -> None:
  """Writes the usual file with the stamps of its packets changed by a function of their stream's type and time."""
  one = usual(path.with_name(f"one{suffix}"), **settings)
  with av.open(str(one)) as source, av.open(str(path), "w") as target:
    streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
    for packet in source.demux():
      if packet.dts is None:
        continue
      shift = shifts(packet.stream.type, float(packet.pts * packet.time_base))
      if shift is None:
        continue
      ticks = round(shift / packet.time_base)
      packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
      packet.stream = streams[packet.stream.index]
      target.mux(packet)


def timed(times: list[float], flashes: tuple[float, ...] = FLASHES, **settings) -> Callable[[Path], object]:
  """Returns a function that writes frames at times, with beeps at the flashes."""

  def write(path: Path) -> object:
    settings.setdefault("sound_rate", 16000)
    sound = clicks(times[-1] + 0.5, list(flashes), settings["sound_rate"])
    return write_video(path, frames_at(times, flashes), times, sound=sound, **settings)

  return write


def gif(durations: list[int]) -> Callable[[Path], object]:
  """Returns a function that writes a GIF whose frames last so many milliseconds, the second one white."""

  def write(path: Path) -> None:
    images = [
      Image.fromarray(np.full((24, 32, 3), 230 if at == 1 else 16 + at, np.uint8)) for at in range(len(durations))
    ]
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations)

  return write


def turned(turn: int, hflip: bool, vflip: bool) -> Situation:
  """Returns a silent picture with a white box, which lies at the top left before it is turned and mirrored."""
  box = np.zeros((2, 2), bool)
  box[0, 0] = True
  shown = np.rot90(box, turn // 90)[:: -1 if vflip else 1, :: -1 if hflip else 1]
  row, column = (int(index[0]) for index in np.nonzero(shown))

  def write(path: Path) -> None:
    frame = np.full((24, 32, 3), 16, np.uint8)
    frame[:12, :16] = 230
    with av.open(str(path), "w") as container:
      stream = container.add_stream("libx264", rate=RATE)
      stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
      stream.set_display_rotation(turn, hflip, vflip)
      picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
      for packet in stream.encode(picture) + stream.encode(None):
        container.mux(packet)

  return Situation(write, ".mp4", flashes=(), duration=None, corner=(row, column), is_silent=True)


def many_channels(path: Path, layout: str, family: int) -> None:
  """Writes sound of many channels, whose first one has the beeps."""
  wave = clicks(3, list(FLASHES), 48000, av.AudioLayout(layout).nb_channels)
  wave[1:] = 0
  write = {"codec": "ffv1", "pixels": "bgr0"}
  with av.open(str(path), "w") as container:
    times = [number / RATE for number in range(30)]
    video = container.add_stream(write["codec"], rate=RATE)
    video.height, video.width, video.pix_fmt = 32, 48, write["pixels"]
    video.time_base = video.codec_context.time_base = CLOCK
    sound = container.add_stream("libopus", rate=48000, layout=layout, options={"mapping_family": str(family)})
    packets = []
    for time, frame in zip(times, frames_at(times)):
      picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")
      picture.pts, picture.time_base = round(time / CLOCK), CLOCK
      packets += video.encode(picture)
    packets += video.encode(None)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave.T).reshape(1, -1), format="flt", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
    packets += sound.encode(frame) + sound.encode(None)
    for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
      container.mux(packet)


def one_channel(channel: int, channels: int) -> np.ndarray:
  """Returns the usual beeps in one of several channels."""
  wave = clicks(3, list(FLASHES), 48000, channels)
  wave[[index for index in range(channels) if index != channel]] = 0
  return wave


H264, FFV1, VP8 = ("libx264", "yuv420p"), ("ffv1", "bgr0"), ("libvpx", "yuv420p")
PCM = {"codec": "ffv1", "pixels": "bgr0", "sound_codec": "pcm_s16le", "sound_rate": 16000}
MJPEG = PCM | {"codec": "mjpeg", "pixels": "yuvj420p"}
SLIDE = [0, 0.5, 0.7, 1, *(700 + number / 10 for number in range(10))]

CONTAINERS: dict[str, Situation] = {
  # Containers and codecs.
  "mp4, h264 and aac": plain(".mp4", *H264, "aac"),
  "mp4, h264 and mp3": plain(".mp4", *H264, "libmp3lame"),
  "mp4, h264 and opus": plain(".mp4", *H264, "libopus"),
  "mp4, h264 and ac3": plain(".mp4", *H264, "ac3"),
  "mp4, mpeg4 and aac": plain(".mp4", "mpeg4", "yuv420p", "aac", 22050),
  "m4v, h264 and aac": plain(".m4v", *H264, "aac", 8000),
  "mov, mjpeg and pcm": plain(".mov", "mjpeg", "yuvj420p", "pcm_s16le", 44100),
  "mov, h264 and alac": plain(".mov", *H264, "alac"),
  "mov, png and 24 bits": plain(".mov", "png", "rgb24", "pcm_s24le", 96000, 2),
  "3gp, h264 and aac": plain(".3gp", *H264, "aac", 16000),
  "mkv, ffv1 and flac": plain(".mkv", *FFV1, "flac"),
  "mkv, h264 and aac": plain(".mkv", *H264, "aac"),
  "mkv, h264 and opus": plain(".mkv", *H264, "libopus"),
  "mkv, mpeg4 and floats": plain(".mkv", "mpeg4", "yuv420p", "pcm_f32le", 44100, 2),
  "avi, huffyuv and 8 bits": plain(".avi", "huffyuv", "yuv422p", "pcm_u8", 8000),
  "mkv, h264 and eac3": plain(".mkv", *H264, "eac3"),
  "webm, vp8 and opus": plain(".webm", *VP8, "libopus"),
  "webm, vp8 and vorbis": plain(".webm", *VP8, "vorbis", channels=2),
  "webm, vp9 and opus": plain(
    ".webm", "libvpx-vp9", "yuv420p", "libopus", options={"cpu-used": "8", "deadline": "realtime"}
  ),
  "avi, mpeg4 and mp3": plain(".avi", "mpeg4", "yuv420p", "libmp3lame", rate=48000),
  "avi, mjpeg and pcm": plain(".avi", "mjpeg", "yuvj420p", "pcm_s16le", 16000),
  "ts, h264 and aac": plain(".ts", *H264, "aac"),
  "ts, mpeg4 and mp2": plain(".ts", "mpeg4", "yuv420p", "mp2"),
  "ts, h264 and ac3": plain(".ts", *H264, "ac3"),
  "m2ts, h264 and aac": plain(".m2ts", *H264, "aac"),
  "flv, h264 and aac": plain(".flv", *H264, "aac", 44100),
  "flv, flv and mp3": plain(".flv", "flv", "yuv420p", "libmp3lame", 44100),
  "nut, ffv1 and pcm": plain(".nut", *FFV1, "pcm_s16le"),
  "asf, mpeg4 and mp3": plain(".asf", "mpeg4", "yuv420p", "libmp3lame"),
  "wmv, wmv2 and pcm": plain(".wmv", "wmv2", "yuv420p", "pcm_s16le", 44100),
  # Streams that begin at different times.
  "mkv, sound begins late": Situation(lambda path: usual(path, sound_at=0.3, **PCM), ".mkv"),
  "mkv, picture begins late": Situation(lambda path: usual(path, at=1.0, sound_at=0.0, **PCM), ".mkv"),
  "mp4, sound begins late": Situation(lambda path: usual(path, sound_at=0.3), ".mp4"),
  "mp4, picture begins late": Situation(lambda path: usual(path, at=1.0, sound_at=0.0), ".mp4"),
  "ts, both begin late": Situation(lambda path: usual(path, at=900.0), ".ts"),
  "ts, sound begins late": Situation(lambda path: usual(path, sound_at=0.3), ".ts"),
  "flv, picture begins late": Situation(lambda path: usual(path, at=1.0, sound_at=0.0, sound_rate=44100), ".flv"),
  "mov, sound begins late": Situation(
    lambda path: usual(path, sound_at=0.4, **PCM | {"codec": "png", "pixels": "rgb24"}), ".mov"
  ),
  # Clocks that start again, jump, wrap around, or are damaged.
  "ts, two recordings": Situation(
    joined, ".ts", (0.5, 1.7, 3.5, 4.7), duration=None, notes="starts again 1×", slack=0.1
  ),
  "ts, three recordings": Situation(
    lambda path: joined(path, 3),
    ".ts",
    (0.5, 1.7, 3.5, 4.7, 6.5, 7.7),
    duration=None,
    notes="starts again 2×",
    slack=0.2,
  ),
  "ts, the clock jumps an hour": Situation(
    lambda path: shifted(path, lambda kind, time: 3600 * (time > 2.9), ".ts"), ".ts", notes="starts again"
  ),
  "ts, the clock jumps back": Situation(
    joined_back, ".ts", (0.5, 1.7, 3.5, 4.7), duration=None, notes="starts again 1×", slack=0.1
  ),
  "ts, 33 bits wrap around": Situation(lambda path: usual(path, at=2**33 / 90000 - 2.5), ".ts"),
  "mp4, a slide of 700 s": Situation(
    timed(SLIDE, (0.5, 700.3), sound_codec="aac", sound_rate=8000),
    ".mp4",
    (0.5, 700.3),
    duration=700.95,
    times=tuple(SLIDE),
  ),
  "mkv, a slide of 20 s": Situation(
    timed([0, 0.5, 0.7, 1, 20, 20.3, 20.5], (0.5, 20.3), **PCM),
    ".mkv",
    (0.5, 20.3),
    duration=None,
    times=(0, 0.5, 0.7, 1, 20, 20.3, 20.5),
  ),
  "ts, a slide of 30 s": Situation(
    timed([0, 0.5, 0.7, 1, 30, 30.3, 30.5], (0.5, 30.3), sound_codec="aac"),
    ".ts",
    (0.5, 30.3),
    duration=None,
    times=(0, 0.5, 0.7, 1, 30, 30.3, 30.5),
  ),
  "mkv, no frames for a while": Situation(
    lambda path: shifted(
      path, lambda kind, time: None if kind == "video" and 0.8 < time < 1.6 else 0.0, ".mkv", **MJPEG
    ),
    ".mkv",
  ),
  "mkv, no sound for a while": Situation(
    lambda path: shifted(path, lambda kind, time: None if kind == "audio" and 0.8 < time < 1.5 else 0.0, ".mkv", **PCM),
    ".mkv",
  ),
  "mkv, one damaged stamp": Situation(
    lambda path: write_stamped(
      path, frames_at([n / 10 for n in range(30)]), [*(n / 10 for n in range(8)), 9e8, *(n / 10 for n in range(9, 30))]
    ),
    ".mkv",
    duration=None,
    times=tuple(n / 10 for n in range(30)),
    is_silent=True,
    notes="damaged time stamps",
  ),
  "mkv, a clock that starts again": Situation(
    lambda path: write_stamped(
      path, frames_at([n / 10 for n in range(30)]), [*(50 + n / 10 for n in range(9)), *(n / 10 for n in range(21))]
    ),
    ".mkv",
    duration=None,
    times=tuple(n / 10 for n in range(30)),
    is_silent=True,
    notes="starts again 1×",
  ),
  # Rates and durations.
  "webm, a header that says 1000 fps": Situation(
    timed([round(n / 30, 3) for n in range(90)], codec="libvpx", rate=1000, sound_codec="libopus", sound_rate=48000),
    ".webm",
    duration=3.0,
  ),
  "mkv, a varying rate": Situation(
    timed([0, 0.1, 0.15, 0.5, 0.6, 0.7, 1.2, 1.7, 1.8, 1.9, 2.5, 2.9], **PCM),
    ".mkv",
    duration=3.0,
    times=(0, 0.1, 0.15, 0.5, 0.6, 0.7, 1.2, 1.7, 1.8, 1.9, 2.5, 2.9),
  ),
  "gif, a long last frame": Situation(gif([100, 200, 100, 3000]), ".gif", (0.1,), duration=3.4, is_silent=True),
  "gif, equal frames": Situation(gif([100] * 5), ".gif", (0.1,), duration=0.5, is_silent=True),
  "mkv, one frame a second": Situation(timed([0, 1, 2, 3], (1.0,), **PCM | {"rate": 1}), ".mkv", (1.0,), duration=4.0),
  "mp4, 60 frames a second": Situation(
    timed([n / 60 for n in range(120)], rate=60, sound_codec="aac"), ".mp4", duration=2.0
  ),
  # Files without presentation times.
  "h264, no container": Situation(
    lambda path: write_video(path, frames_at([n / 25 for n in range(50)]), rate=25),
    ".h264",
    duration=2.0,
    is_silent=True,
  ),
  "mjpeg, no container": Situation(
    lambda path: write_video(path, frames_at([n / 25 for n in range(50)]), codec="mjpeg", pixels="yuvj420p", rate=25),
    ".mjpeg",
    duration=2.0,
    is_silent=True,
  ),
  # Channels and silence.
  "mkv, beeps on the left alone": Situation(
    lambda path: usual(path, sound=one_channel(0, 2), **PCM | {"sound_rate": 48000}), ".mkv"
  ),
  "mkv, beeps in the centre of six": Situation(
    lambda path: usual(path, sound=one_channel(2, 6), **PCM | {"sound_rate": 48000}), ".mkv"
  ),
  "mkv, ambisonic": Situation(lambda path: many_channels(path, "ambisonic 1", 2), ".mkv"),
  "mkv, ambisonic of 16 channels": Situation(lambda path: many_channels(path, "ambisonic 3", 2), ".mkv"),
  "mkv, nine channels without places": Situation(lambda path: many_channels(path, "9 channels", 255), ".mkv"),
  "mp4, no sound": Situation(
    lambda path: write_video(path, frames_at([n / 10 for n in range(30)])), ".mp4", is_silent=True
  ),
  "mkv, sound ends early": Situation(
    lambda path: usual(path, sound=clicks(0.9, [0.5], 16000), **PCM), ".mkv", beeps=(0.5,)
  ),
  "mp4, sound ends late": Situation(
    lambda path: usual(path, sound=clicks(5, [0.5, 1.7, 4.5], 48000)), ".mp4", beeps=(0.5, 1.7, 4.5)
  ),
  "mp4, one frame": Situation(
    lambda path: write_video(path, frames_at([0.0])), ".mp4", (), duration=0.1, times=(0.0,), is_silent=True
  ),
  # Turned and mirrored.
  **{
    f"mp4, turned by {turn}{', mirrored' * hflip}": turned(turn, hflip, False)
    for turn in (0, 90, 180, 270)
    for hflip in (False, True)
  },
}
