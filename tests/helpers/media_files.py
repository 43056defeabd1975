"""Small videos and sounds for tests."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from stajax.media.audio import audio_blocks

CLOCK = Fraction(1, 1000)


def ramp(count: int, height: int = 48, width: int = 64) -> np.ndarray:
  """Returns frames (count, height, width, 3) whose grey level tells their number: 20, 30, 40 and so on."""
  levels = 20 + 10 * np.arange(count) % 220
  return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).astype(np.uint8)


def moving(count: int) -> np.ndarray:
  """Returns frames (count, 48, 64, 3) that are known by their grey."""
  return np.broadcast_to((np.arange(count) % 250).astype(np.uint8)[:, None, None, None], (count, 48, 64, 3))


def write_video(
  path: Path,
  frames: np.ndarray,
  times: list[float] | None = None,
  codec: str = "libx264",
  pixels: str = "yuv420p",
  rate: int = 10,
  sound: np.ndarray | None = None,
  sound_codec: str = "aac",
  sound_rate: int = 44100,
  sound_start: float = 0.0,
  rotation: int = 0,
  cover: bytes | None = None,
  options: dict[str, str] | None = None,
  container: dict[str, str] | None = None,
  clock: Fraction = CLOCK,
) -> Path:
  """Writes frames (n, h, w, 3) uint8 at times in seconds with sound (channels, n) float32 in [-1, 1]."""
  times = [number / rate for number in range(len(frames))] if times is None else times
  with av.open(str(path), "w", options=container or {}) as file:
    stream = file.add_stream(codec, rate=rate)
    stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
    stream.time_base = stream.codec_context.time_base = clock
    stream.codec_context.options = options or {}
    if rotation:
      stream.set_display_rotation(rotation)
    packets = []
    if sound is not None:
      layout = {1: "mono", 2: "stereo", 4: "4.0", 6: "5.1"}[len(sound)]
      target = file.add_stream(sound_codec, rate=sound_rate, layout=layout)
      if sound_codec == "vorbis":
        target.codec_context.options = {"strict": "-2"}
    if cover is not None:
      picture = file.add_stream("png", rate=1)
      picture.height, picture.width, picture.pix_fmt = 8, 8, "rgb24"
      picture.disposition = av.stream.Disposition.attached_pic
      packets += picture.encode(av.VideoFrame.from_ndarray(np.zeros((8, 8, 3), np.uint8), format="rgb24"))
    for time, frame in zip(times, frames):
      picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(format=pixels)
      picture.pts, picture.time_base = round(time / clock), clock
      packets += stream.encode(picture)
    packets += stream.encode(None)
    if sound is not None:
      wave = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound, np.float32), format="fltp", layout=layout)
      wave.sample_rate, wave.pts, wave.time_base = sound_rate, round(sound_start * sound_rate), Fraction(1, sound_rate)
      packets += target.encode(wave) + target.encode(None)
    for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
      file.mux(packet)
  return path


def write_stamped(path: Path, frames: np.ndarray, stamps: list[float]) -> Path:
  """Writes a Matroska file whose time stamps, in seconds, may be in any order."""
  late = 2**41  # so that each stamp takes six bytes
  with av.open(str(path), "w", options={"cluster_size_limit": "1"}) as container:
    stream = container.add_stream("ffv1", rate=10)
    stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "bgr0"
    stream.time_base = stream.codec_context.time_base = CLOCK
    for number, frame in enumerate(frames):
      picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(format="bgr0")
      picture.pts, picture.time_base = late + 100 * number, CLOCK
      container.mux(stream.encode(picture))
    container.mux(stream.encode(None))
  content = path.read_bytes()
  for number, stamp in enumerate(stamps):
    written = b"\xe7\x86" + (late + 100 * number).to_bytes(6, "big")
    assert content.count(written) == 1
    content = content.replace(written, b"\xe7\x86" + round(stamp * 1000).to_bytes(6, "big"))
  path.write_bytes(content)
  return path


def touch(path: Path, content: str = "") -> None:
  """Writes a file that is not decoded, and its folder."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(content)


def read_sound(path: Path, notes: list[str] | None = None) -> np.ndarray:
  """Returns all samples of a media file's sound, (n,) float32 mono at 16 kHz."""
  return np.concatenate([np.zeros(0, np.float32), *audio_blocks(path, notes)])


def noise(length: int, seed: int = 0) -> np.ndarray:
  """Returns noise as sound, (n,) float32."""
  return np.random.default_rng(seed).normal(0, 0.1, length).astype(np.float32)


def clicks(seconds: float, at: list[float], rate: int = 44100, channels: int = 1) -> np.ndarray:
  """Returns sound (channels, n) that is silent but for bursts of 10 ms that begin at the given times."""
  wave = np.zeros((channels, round(seconds * rate)), np.float32)
  burst = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(rate // 100) / rate)
  for time in at:
    wave[:, round(time * rate) : round(time * rate) + len(burst)] = burst
  return wave


def onsets(samples: np.ndarray) -> list[float]:
  """Returns when bursts begin, in seconds."""
  loud = np.flatnonzero(np.abs(samples) > 0.2)
  return [float(at) / 16000 for at in loud[np.diff(loud, prepend=-(10**6)) > 800]]
