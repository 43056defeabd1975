"""Tests of decoding by hardware: what is said where it is missing, and that its frames get the same treatment.

Machines for tests have no such hardware. Devices hand frames over as NV12 or P010, with the side data and the colours
of the stream; so frames of the software decoder are converted to that here.
"""

import numpy as np
import pytest
from av.codec.hwaccel import hwdevices_available

from helpers.media_files import clicks, ramp, write_video
from stajax.media import hardware, isolated, video
from stajax.media.file import Decoding, MediaError
from stajax.media.video import grid_frames, native_frames
from stajax.predict.__main__ import main
from tests.media.test_video import striped
from tests.predict import test_outputs

model = test_outputs.model
HDR = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
MISSING = next((name for name in hwdevices_available() if not hardware.is_present(name)), "no-such")


@pytest.fixture
def path(tmp_path):
  return write_video(tmp_path / "a.mp4", ramp(6), sound=clicks(0.6, [0.2]))


@pytest.fixture
def device(monkeypatch):
  """Puts the software decoder, whose frames are converted to the given format, in place of a device."""

  def use(pixels: str) -> Decoding:
    decode = video.decode

    def decoded(*arguments):
      for item in decode(*arguments):
        yield item.reformat(format=pixels) if hasattr(item, "reformat") else item

    monkeypatch.setattr(video, "decode", decoded)
    monkeypatch.setattr(video, "why_missing", lambda name: "")
    monkeypatch.setattr(video, "device", lambda decoding: None)
    monkeypatch.setattr(video, "is_used", lambda stream: True)
    return Decoding(hardware="cuda")

  return use


def test_a_missing_device_is_named_with_those_that_are_there():
  present = [name for name in hwdevices_available() if hardware.is_present(name)]
  known = ", ".join(hwdevices_available()) or "none"
  ending = f"; found {', '.join(present) or 'no decoder in hardware'}, FFmpeg knows {known}"
  assert hardware.why_missing("nonsense") == f"FFmpeg here does not know it{ending}"
  if MISSING != "no-such":
    assert hardware.why_missing(MISSING) == f"this machine has none{ending}" == isolated.why_missing(MISSING)
  assert all(hardware.why_missing(name) == "" for name in present)


def test_software_takes_over_only_if_asked(path):
  with pytest.raises(MediaError, match=rf"a\.mp4: cannot be decoded by {MISSING}: .*; found .*, FFmpeg knows"):
    list(native_frames(path, decoding=Decoding(hardware=MISSING)))
  notes = []
  found = list(native_frames(path, notes=notes, decoding=Decoding(hardware=MISSING, falls_back=True)))
  assert len(notes) == 1 and notes[0].startswith(f"picture: decoded by software, not {MISSING}: ")
  for (time, frame), (expected_time, expected) in zip(found, native_frames(path), strict=True):
    assert time == expected_time
    np.testing.assert_array_equal(frame, expected)


def test_a_stream_that_the_device_refuses_is_named(path, monkeypatch):
  monkeypatch.setattr(video, "why_missing", lambda name: "")
  monkeypatch.setattr(video, "device", lambda decoding: None)  # as FFmpeg opens what a device does not decode
  with pytest.raises(MediaError, match=r"a\.mp4: cuda does not decode its h264 \(yuv420p\), expected --hardware-fall"):
    list(grid_frames(path, 8.0, 16, decoding=Decoding(hardware="cuda")))
  notes = []
  assert len(list(grid_frames(path, 8.0, 16, notes, Decoding(hardware="cuda", falls_back=True)))) == 5
  assert notes == ["picture: decoded by software, since cuda does not decode its h264 (yuv420p)"]


@pytest.mark.parametrize("name, options", [
  ("a.mp4", {}), ("a.mp4", {"rotation": 90}), ("a.mkv", {"pixels": "yuvj420p"}),
  ("a.mp4", {"pixels": "yuv420p10le", "options": {"x264-params": HDR}}),
  ("a.mkv", {"codec": "mpeg4", "rate": 25, "options": {"flags": "+ildct+ilme", "b": "9000000"}}),
])  # fmt: skip
def test_frames_of_a_device_are_turned_and_coloured_alike(tmp_path, device, name, options):
  if "codec" in options:
    frames, _ = striped(8)
  else:
    rows, columns = np.mgrid[:48, :64]
    pictures = [np.stack([4 * columns, 5 * rows, 20 * number + rows], -1) for number in range(6)]
    frames = np.stack(pictures).astype(np.uint8)
  path = write_video(tmp_path / name, frames, **options)
  notes, expected_notes = [], []
  expected = list(native_frames(path, notes=expected_notes))
  decoding = device("p010le" if "10" in options.get("pixels", "") else "nv12")
  found = list(native_frames(path, notes=notes, decoding=decoding))
  assert len(found) == len(expected) == len(frames) and notes == expected_notes
  for (time, frame), (expected_time, other) in zip(found, expected, strict=True):
    assert time == expected_time and frame.shape == other.shape
    assert np.abs(frame.astype(int) - other).mean() < 2  # chroma is scaled in another way


def test_the_command_says_it_before_it_loads_a_model(path, model, tmp_path, capsys):
  command = [str(path), "--model", str(model), "--out", str(tmp_path / "out"), "--no-overlay"]
  assert main([*command, "--hardware-decoder", MISSING]) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(f"stajax predict: --hardware-decoder {MISSING}: ") and "FFmpeg knows" in line
  assert main([*command, "--hardware-decoder", MISSING, "--hardware-fallback"]) == 0
  assert f"picture: decoded by software, not {MISSING}" in capsys.readouterr().err
  assert main([*command, "--hardware-fallback"]) == 2
  assert "expected --hardware-decoder with it" in capsys.readouterr().err
