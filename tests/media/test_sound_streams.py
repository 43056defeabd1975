"""Files with several sound streams: which one is heard, said, and written into the overlay."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from stajax.media.audio import audio_blocks
from stajax.media.file import Decoding, MediaError
from stajax.media.video import native_frames, probe
from stajax.media.video_writer import VideoWriter
from tests.helpers.media_files import CLOCK, ramp

PITCHES = (500, 1000, 2000)  # of the three streams
NONE, DEFAULT, COMMENT = Disposition(0), Disposition.default, Disposition.comment


def write(path: Path, flags: tuple[Disposition, ...], languages: tuple[str, ...] = ("deu", "eng", "fra")) -> Path:
  """Writes a second of video with a tone in each sound stream."""
  with av.open(str(path), "w") as container:
    picture = container.add_stream("libx264", rate=10)
    picture.width, picture.height, picture.pix_fmt, picture.codec_context.time_base = 64, 48, "yuv420p", CLOCK
    packets, streams = [], []
    for flag, language in zip(flags, languages):
      stream = container.add_stream("aac", rate=44100, layout="mono")
      stream.disposition, stream.metadata["language"] = flag, language
      streams.append(stream)
    for number, frame in enumerate(ramp(10)):
      shown = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(format="yuv420p")
      shown.pts, shown.time_base = number * 100, CLOCK
      packets += picture.encode(shown)
    packets += picture.encode(None)
    for stream, pitch in zip(streams, PITCHES):
      wave = 0.5 * np.sin(2 * np.pi * pitch * np.arange(44100) / 44100).astype(np.float32)[None]
      sound = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
      sound.sample_rate, sound.pts, sound.time_base = 44100, 0, Fraction(1, 44100)
      packets += stream.encode(sound) + stream.encode(None)
    for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
      container.mux(packet)
  return path


def pitch(path: Path, number: int | None = None, notes: list[str] | None = None) -> float:
  """Returns the pitch that is heard, in Hz."""
  samples = np.concatenate(list(audio_blocks(path, notes, Decoding(sound=number))))[2000:14000]
  return float(np.abs(np.fft.rfft(samples)).argmax()) * 16000 / len(samples)


@pytest.mark.parametrize(
  "flags, heard",
  [
    ((NONE, NONE, NONE), 1),
    ((NONE, DEFAULT, NONE), 2),
    ((COMMENT, NONE, NONE), 2),
    ((COMMENT | DEFAULT, DEFAULT, NONE), 2),
    ((COMMENT,), 1),
  ],
)
def test_the_preferred_stream_is_heard_and_said(tmp_path, flags, heard):
  path, notes = write(tmp_path / "a.mkv", flags), list[str]()
  assert pitch(path, None, notes) == pytest.approx(PITCHES[heard - 1], abs=3)
  assert len(notes) == (len(flags) > 1) and all(f"sound: stream {heard} of 3 is heard (" in note for note in notes)
  assert all("3: fra" in note and "--sound-stream" in note for note in notes)


def test_a_stream_can_be_chosen_also_for_the_overlay(tmp_path):
  path = write(tmp_path / "a.mp4", (DEFAULT, NONE, NONE))
  for number in (1, 2, 3):
    assert pitch(path, number) == pytest.approx(PITCHES[number - 1], abs=3)
  with VideoWriter(tmp_path / "o.mp4", probe(path, Decoding(sound=3))) as writer:
    for time, frame in native_frames(path):
      writer.write(time, frame)
  assert pitch(tmp_path / "o.mp4") == pytest.approx(PITCHES[2], abs=3)


@pytest.mark.parametrize("read", [lambda path, decoding: list(audio_blocks(path, None, decoding)), probe])
def test_a_stream_that_is_not_there_is_refused(tmp_path, read):
  path = write(tmp_path / "a.mkv", (NONE, NONE))
  with pytest.raises(MediaError, match=r"a\.mkv: has 2 sound streams, no number 3"):
    read(path, Decoding(sound=3))
