"""Damaged media files: each becomes clips or a one-line reason within its limits, and memory does not grow."""

import io
import os
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.media_files import clicks, ramp, write_video

pytest.importorskip("pebble")

from stajax.media.limits import Failure, Limits, run_in_children
from stajax.prepare.clip import MediaSettings
from stajax.prepare.clip_staging import ClipStaging
from stajax.prepare.listing import Item
from stajax.prepare.media_tasks import Outcome, Task, stage

SETTINGS = MediaSettings(side=32)
LIMITS = Limits(max_seconds=30, max_pixels=2**22, max_bytes=2**24, time_limit=20, memory=2**30)
GROWTH = 48 * 2**20  # bytes that a child may grow in the second half of its work, for dozens or hundreds of files


def originals(folder: Path) -> list[Path]:
  """Writes small videos in many containers and codecs."""
  pixels = np.random.default_rng(0).integers(0, 256, (12, 24, 32, 3), np.uint8).repeat(2, 1).repeat(2, 2)
  wave = clicks(1.2, [0.3, 0.8], 16000) + 0.01 * np.sin(np.arange(19200))
  made = [
    write_video(folder / name, pixels, codec=codec, pixels=layout, sound=wave, sound_codec=sound, sound_rate=rate)
    for name, codec, layout, sound, rate in (
      ("a.mp4", "libx264", "yuv420p", "aac", 16000), ("b.mkv", "ffv1", "bgr0", "flac", 16000),
      ("c.avi", "mpeg4", "yuv420p", "libmp3lame", 16000), ("d.webm", "libvpx", "yuv420p", "libopus", 16000),
      ("e.mov", "mjpeg", "yuvj420p", "pcm_u8", 16000), ("f.mkv", "mpeg4", "yuv420p", "pcm_s16le", 16000),
      ("g.ts", "libx264", "yuv420p", "aac", 16000), ("h.flv", "flv", "yuv420p", "pcm_u8", 16000),
    )
  ]  # fmt: skip
  made.append(write_video(folder / "i.mp4", pixels, codec="libx264", rotation=90, options={"flags": "+ildct+ilme"}))
  made.append(folder / "j.gif")
  frames = [Image.fromarray(frame) for frame in ramp(5)]
  frames[0].save(made[-1], save_all=True, append_images=frames[1:], duration=100)
  return made


def enlarge_sizes(content: bytearray, rng: np.random.Generator) -> bytearray:
  """Replaces sizes of pictures, boxes or tables in the header by absurd numbers."""
  for mark, skip, width in ((b"tkhd", 80, 8), (b"avc1", 24, 4), (b"mp4v", 24, 4), (b"jpeg", 24, 4), (b"stsz", 8, 8),
                            (b"stts", 4, 8), (b"mdat", -8, 4), (b"avih", 36, 8), (b"strf", 8, 8), (b"GIF89a", 0, 4),
                            (b"\xb0\x82", 0, 4), (b"\x16\x54\xae\x6b", 0, 8), (b"onMetaData", 20, 8)):  # fmt: skip
    at = content.find(mark)
    if at >= 0 and rng.random() < 0.6:
      at = max(0, at + len(mark) + skip)
      value = (2**64 - 1, 2**63 - 1, 2**31 - 1, 60000)[rng.integers(4)]
      content[at : at + width] = struct.pack(">Q", value)[-width:]
  return content


def mutate(original: Path, others: list[Path], target: Path, rng: np.random.Generator) -> tuple[Path, str]:
  """Writes a damaged copy; returns its path and the kind of damage."""
  kind = str(rng.choice(["truncated", "flipped", "header", "zeroed", "huge", "extension", "empty", "spliced", "random"],
                        p=[0.18, 0.2, 0.15, 0.1, 0.17, 0.06, 0.02, 0.08, 0.04]))  # fmt: skip
  content = bytearray(original.read_bytes())
  size, suffix = len(content), original.suffix
  if kind == "truncated":
    content = content[: int(rng.integers(1, size))]
  elif kind in ("flipped", "header"):
    span = size if kind == "flipped" else min(size, 2000)
    for at in rng.integers(0, span, int(rng.integers(1, 60))):
      content[at] ^= 1 << int(rng.integers(8))
  elif kind == "zeroed":
    at, length = sorted(rng.integers(0, size, 2))
    content[at:length] = bytes([int(rng.choice([0, 255]))]) * (length - at)
  elif kind == "huge":
    content = enlarge_sizes(content, rng)
  elif kind == "extension":
    suffix = str(rng.choice([path.suffix for path in others] + [".wav", ".txt", ".m3u8", ""]))
  elif kind == "empty":
    content = bytearray()
  elif kind == "spliced":
    other = others[int(rng.integers(len(others)))].read_bytes()
    content = content[: int(rng.integers(1, size))] + other[int(rng.integers(len(other))) :]
  else:
    content = content[:64] + bytearray(rng.bytes(size))
  path = target.with_suffix(suffix) if suffix else target
  path.write_bytes(content)
  return path, kind


def stage_and_measure(task: Task) -> tuple[Outcome, int, int]:
  """Returns the outcome, the child's id, and its resident memory in bytes (0 where it is not known)."""
  outcome = stage(task, SETTINGS, LIMITS)
  status = Path("/proc/self/statm")
  pages = int(status.read_text().split()[1]) if status.exists() else 0
  return outcome, os.getpid(), pages * os.sysconf("SC_PAGE_SIZE")


def fuzz(folder: Path, number: int, seed: int, processes: int) -> Counter[str]:
  """Stages damaged files; returns how many of each kind of damage were kept, refused or ended by a limit."""
  rng = np.random.default_rng(seed)
  (folder / "originals").mkdir()
  (folder / "files").mkdir()
  made = originals(folder / "originals")
  cases = [mutate(made[i % len(made)], made, folder / "files" / f"{i:05d}", rng) for i in range(number)]
  tasks = [(Task(f"{i:05d}", Item(f"{i:05d}", path, ("tag",)), path.name, folder / "staging"),)
           for i, (path, _) in enumerate(cases)]  # fmt: skip
  counts, grown, seen = Counter(), {}, set()
  for i, result in run_in_children(stage_and_measure, tasks, processes, LIMITS):
    seen.add(i)
    outcome = Outcome(reason=result.reason) if isinstance(result, Failure) else result[0]
    assert "\n" not in outcome.reason
    word = "ended" if isinstance(result, Failure) else "refused" if outcome.reason else "kept"
    counts[f"{cases[i][1]}: {word}"] += 1
    counts[word] += 1
    if word != "kept":
      counts[f"reason: {outcome.reason[:60]}"] += 1
      assert outcome.reason
    else:
      for _, key in outcome.clips:
        check_clip(folder / "staging", key)
    if not isinstance(result, Failure):
      grown.setdefault(result[1], []).append(result[2])
  assert seen == set(range(number))
  for sizes in grown.values():
    if len(sizes) >= 16:
      counts["MiB grown"] = max(counts["MiB grown"], (sizes[-1] - sizes[len(sizes) // 2]) // 2**20)
      assert sizes[-1] - sizes[len(sizes) // 2] < GROWTH
  return counts


def check_clip(staging: Path, key: str) -> None:
  """Checks that a clip that was kept is whole."""
  clip = ClipStaging(staging).read(key)
  assert 1 <= len(clip.frames) <= LIMITS.max_seconds * SETTINGS.rate + 1
  for jpeg in {*clip.frames}:
    assert Image.open(io.BytesIO(jpeg)).size == (SETTINGS.side, SETTINGS.side)
  assert clip.columns.shape[0] == 257 and np.isfinite(clip.columns.astype(np.float32)).all()
  assert clip.columns.shape[1] <= (LIMITS.max_seconds + 1) * 16000 / 159
  assert np.isfinite([clip.sound_mean, clip.sound_std, clip.duration]).all() and clip.width * clip.height > 0


def test_mutated_files_end_in_clips_or_a_reason(tmp_path):
  counts = fuzz(tmp_path, 50, seed=1, processes=1)
  assert counts["kept"] and counts["refused"] and counts["kept"] + counts["refused"] + counts["ended"] == 50


@pytest.mark.slow
def test_many_mutated_files_end_in_clips_or_a_reason(tmp_path):
  counts = fuzz(tmp_path, 600, seed=2, processes=2)
  print("", *(f"{number:5} {what}" for what, number in sorted(counts.items())), sep="\n")
  assert counts["kept"] + counts["refused"] + counts["ended"] == 600
