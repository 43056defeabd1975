"""Media decoding: times, sizes, sync of picture and sound, and unusual, broken or hostile files."""

import gc
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from helpers.media_files import clicks, onsets, ramp, read_sound, write_stamped, write_video
from helpers.paths import SHARED
from stajax.media.file import Decoding, MediaError
from stajax.media.video import frame_times, grid_frames, native_frames, probe


def test_frames_come_with_their_times_size_and_colour(tmp_path):
  path = write_video(tmp_path / "a.mp4", ramp(12), sound=clicks(1.2, [0.5]))
  info = probe(path)
  assert (info.width, info.height, info.rate, info.has_sound) == (64, 48, 10.0, True)
  assert info.duration == pytest.approx(1.2, abs=0.01)
  frames = list(native_frames(path))
  np.testing.assert_allclose([time for time, _ in frames], np.arange(12) / 10, atol=1e-3)
  assert all(frame.shape == (48, 64, 3) and frame.dtype == np.uint8 for _, frame in frames)
  np.testing.assert_allclose([frame.mean() for _, frame in frames], 20 + 10 * np.arange(12), atol=3)
  assert list(frame_times(path)) == [time for time, _ in frames]
  assert {frame.shape for _, frame in native_frames(path, (10, 20))} == {(10, 20, 3)}


def test_grid_shows_the_last_frame_that_is_not_later(tmp_path):
  times = [0.0, 0.04, 0.25, 0.26, 0.9, 1.5]
  path = write_video(tmp_path / "a.mkv", ramp(6), [time + 3 for time in times], codec="ffv1", pixels="bgr0")
  native = [int(frame[0, 0, 0]) for _, frame in native_frames(path)]
  grid = [(time, int(frame[0, 0, 0])) for time, frame in grid_frames(path, 8.0, 16)]
  assert len(grid) == 13  # the last frame is shown for a tenth of a second, up to 1.6
  for number, (time, level) in enumerate(grid):
    assert time == number / 8
    assert level == native[max(index for index, at in enumerate(times) if at <= time + 1e-3)]


@pytest.mark.parametrize("rate, count", [(25, 8), (30, 8), (10, 8), (5, 8)])
def test_grid_of_a_second_has_rate_frames(tmp_path, rate, count):
  path = write_video(tmp_path / "a.mp4", ramp(rate), rate=rate)
  assert len(list(grid_frames(path, 8.0, 16))) == count


def test_videos_of_one_frame_are_decoded(tmp_path):
  path = write_video(tmp_path / "a.mp4", ramp(1), rate=25)
  assert [time for time, _ in grid_frames(path, 8.0, 16)] == [0.0]
  assert len(list(native_frames(path))) == 1
  Image.new("RGB", (31, 17), (255, 0, 0)).save(tmp_path / "still.png")
  ((_, frame),) = grid_frames(tmp_path / "still.png", 8.0, 16)
  np.testing.assert_array_equal(frame, np.broadcast_to([255, 0, 0], (16, 16, 3)))


@pytest.mark.parametrize(
  "name, codec, pixels", [("a.mkv", "ffv1", "gray10le"), ("a.mkv", "ffv1", "gray"), ("a.mkv", "ffv1", "yuv420p10le"),
                          ("a.avi", "mpeg4", "yuv420p"), ("a.ts", "mpeg4", "yuv420p"), ("a.webm", "libvpx", "yuv420p")]
)  # fmt: skip
def test_odd_sizes_grey_ten_bits_and_containers_are_decoded(tmp_path, name, codec, pixels):
  height, width = (27, 35) if codec in ("ffv1", "libvpx") else (28, 36)
  path = write_video(tmp_path / name, ramp(5, height, width), codec=codec, pixels=pixels)
  info = probe(path)
  assert (info.width, info.height, info.has_sound) == (width, height, False)
  frames = list(native_frames(path))
  np.testing.assert_allclose([time for time, _ in frames], np.arange(5) / 10, atol=2e-3)
  np.testing.assert_allclose([frame.mean() for _, frame in frames], 20 + 10 * np.arange(5), atol=6)
  assert read_sound(path).size == 0


def test_values_use_the_full_range(tmp_path):
  extremes = np.zeros((2, 48, 64, 3), np.uint8)
  extremes[1] = 255
  (_, black), (_, white) = native_frames(write_video(tmp_path / "a.mp4", extremes))
  assert black.max() <= 2 and white.min() >= 253


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_is_applied_as_the_file_says(tmp_path, rotation):
  frames = np.zeros((2, 48, 64, 3), np.uint8)
  frames[:, :24, :32] = 255  # the stored picture's upper left quarter
  path = write_video(tmp_path / "a.mp4", frames, rotation=rotation)
  content = path.read_bytes()
  at = content.index(b"tkhd") + 44
  a, b, _, c, d = struct.unpack(">5i", content[at : at + 20])  # QuickTime: x' = ax + cy, y' = bx + dy, up to a shift
  x, y = np.sign([-a - c, -b - d])  # where the upper left corner (-1, -1) goes
  info = probe(path)
  assert (info.width, info.height) == ((64, 48) if rotation == 180 else (48, 64))
  _, frame = next(native_frames(path))
  assert frame.shape == (info.height, info.width, 3)
  middle = frame[(2 + y) * info.height // 4, (2 + x) * info.width // 4]
  assert middle.min() > 200 and 0.2 < (frame > 128).mean() < 0.3
  _, square = next(grid_frames(path, 8.0, 20))
  assert square[10 + 5 * y, 10 + 5 * x, 0] > 200


@pytest.mark.parametrize(
  "shown, expected",
  [
    ([0, 0.1, 3e9, 0.3, 0.4], [0, 0.1, 0.2, 0.3, 0.4]),
    ([0, 0.1, 3e9, 3e9 + 0.1, 3e9 + 0.3], [0, 0.1, 0.2, 0.3, 0.5]),
    ([99, 99.1, 2, 2.1, 99.4], [0, 0.1, 0.2, 0.3, 0.4]),
    ([9, 9.1, 2, 2.1, 2.3], [0, 0.1, 0.2, 0.3, 0.5]),
    ([0, 0.1, 0.1, 0.1, 0.4], [0, 0.1, 0.101, 0.102, 0.4]),
    ([0, 0.1, 30, 30.1, 31], [0, 0.1, 30, 30.1, 31]),
  ],
)
def test_steps_of_the_clock_are_closed_or_shown(tmp_path, shown, expected):
  path = write_stamped(tmp_path / "a.mkv", ramp(5), shown)
  np.testing.assert_allclose(list(frame_times(path)), expected, atol=1e-6)
  assert len(list(grid_frames(path, 8.0, 16))) <= 8 * expected[-1] + 3


def test_sound_starts_with_the_picture(tmp_path):
  pcm = "pcm_s16le"
  late = write_video(tmp_path / "late.mkv", ramp(20), sound=clicks(1.5, [0.5]), sound_codec=pcm, sound_start=0.4)
  assert onsets(read_sound(late)) == pytest.approx([0.9], abs=2e-3)
  times = [1.25 + number / 10 for number in range(20)]
  early = write_video(tmp_path / "early.mkv", ramp(20), times, sound=clicks(3, [1.0, 2.0]), sound_codec=pcm)
  assert onsets(read_sound(early)) == pytest.approx([0.75], abs=2e-3)
  assert probe(early).origin == pytest.approx(1.25, abs=2e-3)


@pytest.mark.parametrize(
  "name, codec, rate", [("a.mp4", "aac", 44100), ("a.webm", "libopus", 48000), ("a.mp4", "libmp3lame", 22050)]
)
def test_coded_sound_keeps_its_time(tmp_path, name, codec, rate):
  video = "libvpx" if name.endswith("webm") else "libx264"
  path = write_video(
    tmp_path / name, ramp(20), codec=video, sound=clicks(2, [0.5, 1.25], rate), sound_codec=codec, sound_rate=rate
  )
  assert onsets(read_sound(path)) == pytest.approx([0.5, 1.25], abs=4e-3)


@pytest.mark.parametrize(
  "codec, rate, channels",
  [("pcm_u8", 11025, 1), ("pcm_u8", 8000, 2), ("pcm_s24le", 96000, 6), ("pcm_f32le", 44100, 2), ("ac3", 48000, 6)],
)
def test_sound_of_any_bits_rate_and_channels_is_read(tmp_path, codec, rate, channels):
  wave = clicks(2, [0.5, 1.25], rate, channels)
  samples = read_sound(write_video(tmp_path / "a.mkv", ramp(20), sound=wave, sound_codec=codec, sound_rate=rate))
  assert onsets(samples) == pytest.approx([0.5, 1.25], abs=4e-3)
  assert np.abs(samples).max() == pytest.approx(0.8, abs=0.05)  # every channel has it
  assert abs(np.median(samples)) < 1e-3 and abs(len(samples) - 32000) < 400


def test_default_sound_stream_is_heard(tmp_path):
  with av.open(str(tmp_path / "two.mkv"), "w") as container:
    streams = [container.add_stream("pcm_s16le", rate=16000, layout="mono") for _ in range(2)]
    streams[0].disposition = av.stream.Disposition.comment
    streams[1].disposition = av.stream.Disposition.default
    for level, stream in zip((4096, 8192), streams):
      frame = av.AudioFrame.from_ndarray(np.full((1, 1600), level, np.int16), format="s16", layout="mono")
      frame.sample_rate = 16000
      container.mux(stream.encode(frame))
  np.testing.assert_allclose(read_sound(tmp_path / "two.mkv"), 0.25, atol=1e-3)


def test_stereo_is_averaged_and_gaps_are_silent(tmp_path):
  wave = np.zeros((2, 44100), np.float32)
  wave[0] = 0.5
  path = write_video(tmp_path / "a.mkv", ramp(10), sound=wave, sound_codec="pcm_s16le")
  assert np.median(read_sound(path)) == pytest.approx(0.25, abs=1e-3)
  with av.open(str(tmp_path / "gap.mkv"), "w") as container:
    stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
    for start in (0, 16000, 40000):  # a second each; the last begins half a second late
      frame = av.AudioFrame.from_ndarray(np.full((1, 16000), 8192, np.int16), format="s16", layout="mono")
      frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
      for packet in stream.encode(frame):
        container.mux(packet)
  samples = read_sound(tmp_path / "gap.mkv")
  assert len(samples) == 56000
  np.testing.assert_allclose(samples[32200:39800], 0, atol=1e-3)
  np.testing.assert_allclose(np.r_[samples[200:31800], samples[40200:55800]], 0.25, atol=1e-3)


def striped(count: int) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
  """Returns interlaced frames (count, 48, 64, 3) of a moving bar, and the two whole pictures that each is woven of."""
  bars = [np.full((48, 64, 3), 30, np.uint8) for _ in range(2 * count)]
  for number, bar in enumerate(bars):
    bar[:, 2 * number : 2 * number + 8] = 220
  pairs = list(zip(bars[::2], bars[1::2]))
  frames = np.stack([first for first, _ in pairs])
  frames[:, 1::2] = np.stack([second[1::2] for _, second in pairs])
  return frames, pairs


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("name, codec, rotation", [("a.mkv", "mpeg4", 0), ("a.mp4", "libx264", 180)])
def test_interlaced_frames_are_made_whole_in_sync(tmp_path, name, codec, rotation, count):
  frames, pairs = striped(count)
  options = {"flags": "+ildct+ilme", "b": "9000000"}
  path = write_video(tmp_path / name, frames, codec=codec, rate=25, rotation=rotation, options=options)
  with av.open(str(path)) as container:
    assert all(frame.interlaced_frame for frame in container.decode(video=0))
  decoded = list(native_frames(path))
  np.testing.assert_allclose([time for time, _ in decoded], np.arange(count) / 25, atol=2e-3)
  for (_, frame), pair in zip(decoded, pairs, strict=True):
    frame = np.rot90(frame, 2 * (rotation == 180)).astype(int)
    if count > 1:  # FFmpeg's filter compares neighbours
      assert np.abs(np.diff(frame, axis=0)).mean() < 2  # no comb
      assert min(np.abs(frame - picture).mean() for picture in pair) < 4


def test_covers_are_not_the_picture_and_the_default_stream_is(tmp_path):
  path = write_video(tmp_path / "a.mp4", ramp(3), cover=b"")
  assert (probe(path).width, len(list(native_frames(path)))) == (64, 3)
  with av.open(str(tmp_path / "two.mkv"), "w") as container:
    streams = [container.add_stream("ffv1", rate=10) for _ in range(2)]
    for number, stream in enumerate(streams):
      stream.width, stream.height, stream.pix_fmt = 32 + 16 * number, 32, "bgr0"
      stream.disposition = av.stream.Disposition.default if number else av.stream.Disposition.comment
    for stream in streams:
      picture = av.VideoFrame.from_ndarray(np.zeros((32, stream.width, 3), np.uint8), format="rgb24")
      for packet in stream.encode(picture.reformat(format="bgr0")) + stream.encode(None):
        container.mux(packet)
  assert probe(tmp_path / "two.mkv").width == 48


def test_damaged_files_give_what_can_be_decoded(tmp_path):
  noise = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), np.uint8)
  path = write_video(tmp_path / "a.mkv", noise, codec="mjpeg", pixels="yuvj420p", sound=clicks(3, [0.5]))
  content = path.read_bytes()
  (tmp_path / "half.mkv").write_bytes(content[: len(content) // 2])
  frames = list(native_frames(tmp_path / "half.mkv"))
  assert 8 <= len(frames) <= 20
  assert onsets(read_sound(tmp_path / "half.mkv")) == pytest.approx([0.5], abs=4e-3)
  holes = bytearray(content)
  holes[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
  (tmp_path / "holes.mkv").write_bytes(holes)
  notes = []
  assert len(list(native_frames(tmp_path / "holes.mkv", notes=notes))) >= 8
  assert list(grid_frames(tmp_path / "holes.mkv", 8.0, 16))


def test_a_drive_that_stops_answering_leaves_frames_with_their_times(tmp_path, monkeypatch):
  """This includes frames that the decoder holds back when reading ends."""
  noise = np.random.default_rng(0).integers(0, 256, (80, 64, 64, 3), np.uint8)
  path = write_video(tmp_path / "a.mkv", noise, rate=10)
  limit, opened, notes = path.stat().st_size * 3 // 4, Path.open, []

  class Failing:
    def __init__(self, file):
      self.file, self.seek, self.tell, self.name = file, file.seek, file.tell, file.name

    def __enter__(self):
      return self

    def __exit__(self, *_):
      self.file.close()

    def read(self, size):
      if self.file.tell() >= limit:
        raise OSError(5, "Input/output error")
      return self.file.read(min(size, limit - self.file.tell()))

  with monkeypatch.context() as patch:
    patch.setattr(Path, "open", lambda self, mode: Failing(opened(self, mode)))
    frames, grid = list(native_frames(path, notes=notes)), list(grid_frames(path, 8.0, 16))
  assert 30 < len(frames) < 80 and len(notes) >= 1 and "could not be read to its end" in notes[-1]
  np.testing.assert_allclose([time for time, _ in frames], np.arange(len(frames)) / 10, atol=1e-3)
  assert grid[-1][0] > frames[-1][0] - 0.1


def test_undecodable_sound_counts_as_no_sound(tmp_path):
  noise = np.random.default_rng(0).normal(0, 0.1, (1, 22050))
  path = write_video(tmp_path / "a.mkv", ramp(5), codec="ffv1", pixels="bgr0", sound=noise, sound_codec="flac")
  content = bytearray(path.read_bytes())
  with av.open(str(path)) as container:
    spans = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
  for position, size in spans:
    content[position + 6 : position + 6 + size - 12] = b"\x55" * (size - 12)
  path.write_bytes(content)
  notes = []
  assert read_sound(path, notes).size == 0
  assert any("sound" in note for note in notes)
  assert not probe(path).has_sound
  assert len(list(native_frames(path))) == 5


def bad_files(folder: Path) -> dict[str, str]:
  """Makes files that cannot be used and returns what the message about each must say."""
  clip = write_video(folder / "clip.mp4", ramp(3))
  (folder / "empty.mp4").touch()
  (folder / "text.mp4").write_text("hello\n" * 100)
  (folder / "text.txt").write_text("hello\n" * 100)
  (folder / "folder.mp4").mkdir()
  (folder / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{clip.name}\n#EXT-X-ENDLIST\n")
  (folder / "concat.mp4").write_text(f"ffconcat version 1.0\nfile {clip.name}\n")
  (folder / "head.mp4").write_bytes(clip.read_bytes()[:500])
  Image.new("1", (20000, 4)).save(folder / "wide.png")
  with av.open(str(folder / "sound.wav"), "w") as container:
    stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), format="s16", layout="mono")
    frame.sample_rate = 16000
    container.mux(stream.encode(frame))
  return {
    "empty.mp4": "is empty", "text.mp4": "not a media file", "text.txt": "tty", "folder.mp4": "is a folder",
    "list.m3u8": "not a media file", "concat.mp4": "not a media file", "head.mp4": "", "wide.png": "20000×4",
    "sound.wav": "no video stream", "missing.mp4": "no such file", "http://example.org/a.mp4": "is an address",
  }  # fmt: skip


def test_bad_files_are_refused_in_one_line_that_names_them(tmp_path):
  for name, expected in bad_files(tmp_path).items():
    path = name if "://" in name else tmp_path / name
    for read in (probe, lambda path: list(native_frames(path)), lambda path: list(grid_frames(path, 8.0, 16))):
      with pytest.raises(MediaError) as error:
        read(path)
      message = str(error.value)
      assert Path(name).name in message and expected in message and "\n" not in message
  assert len(read_sound(tmp_path / "sound.wav")) == 1600  # sound needs no picture


def test_hostile_sizes_are_refused_before_decoding(tmp_path):
  path = write_video(tmp_path / "a.mp4", ramp(3))
  assert len(list(grid_frames(path, 8.0, 16, decoding=Decoding(max_pixels=64 * 48)))) == 3
  for read in (probe, lambda path, decoding: list(grid_frames(path, 8.0, 16, decoding=decoding))):
    with pytest.raises(MediaError, match="64×48"):
      read(path, decoding=Decoding(max_pixels=64 * 48 - 1))


@pytest.mark.skipif(not (SHARED / "data" / "odd").is_dir(), reason="../shared is absent")
def test_real_odd_files_decode():
  for path in sorted((SHARED / "data" / "odd").iterdir()):
    info = probe(path)
    (_, frame), *_ = native_frames(path, (36, 64))
    assert frame.shape == (36, 64, 3) and info.has_sound
    samples = read_sound(path)
    assert abs(len(samples) / 16000 - info.duration) < 0.15


@pytest.mark.parametrize("options", [{}, {"rotation": 90}], ids=str)
def test_frames_leave_memory_as_soon_as_nobody_needs_them(tmp_path, options):
  """Without waiting for Python to look for circles of references, as a frame of 4K has 12 megabytes."""
  path = write_video(tmp_path / "a.mkv", np.zeros((30, 32, 48, 3), np.uint8), **options)

  def count() -> int:
    # `isinstance` would ask proxies whose object is gone.
    return sum(type(x) is av.VideoFrame for x in gc.get_objects())

  gc.collect()
  gc.disable()
  try:
    before, shown = count(), sum(1 for _ in native_frames(path))
    assert shown == 30 and count() - before < 3
  finally:
    gc.enable()
