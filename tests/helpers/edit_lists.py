"""Edit lists of MP4 files: which parts of a stream are shown, in which order, and after how long."""

import struct
from pathlib import Path

Edit = tuple[float, float | None]
"""The seconds that an edit lasts, and the time in the stream at which it begins; None for an empty one."""


def edit(path: Path, picture: list[Edit] | None = None, sound: list[Edit] | None = None) -> Path:
  """Replaces the edit lists of the streams of an MP4 file whose index lies at the end; None leaves a stream alone.

  Times count from what was shown or heard first before, which is not where the stream begins: encoders add a prelude.
  """
  content = path.read_bytes()
  at = content.rindex(b"moov") - 4
  content = content[:at] + _edited_index(content[at:], {b"vide": picture, b"soun": sound})
  path.write_bytes(content)
  return path


def _edited_index(moov: bytes, lists: dict[bytes, list[Edit] | None]) -> bytes:
  (scale,) = struct.unpack(">I", _find(moov, b"mvhd")[20:24])
  parts = []
  for kind, box in _boxes(moov[8:]):
    if kind == b"trak":
      media = dict(_boxes(box[8:]))[b"mdia"]
      edits = lists[_find(media, b"hdlr")[16:20]]
      if edits is not None:
        (own_scale,) = struct.unpack(">I", _find(media, b"mdhd")[20:24])
        parts_of = dict(_boxes(box[8:]))
        (start,) = struct.unpack(">i", parts_of[b"edts"][-8:-4]) if b"edts" in parts_of else (0,)
        kept = [part for name, part in parts_of.items() if name != b"edts"]
        kept.insert(1, _box(b"edts", _edit_list(edits, scale, own_scale, start)))
        box = _box(b"trak", b"".join(kept))
    parts.append(box)
  return _box(b"moov", b"".join(parts))


def _edit_list(edits: list[Edit], scale: int, own_scale: int, start: int) -> bytes:
  rows = [
    struct.pack(">IiHH", round(length * scale), -1 if begin is None else start + round(begin * own_scale), 1, 0)
    for length, begin in edits
  ]
  return _box(b"elst", struct.pack(">II", 0, len(rows)) + b"".join(rows))


def _box(kind: bytes, content: bytes) -> bytes:
  return struct.pack(">I", len(content) + 8) + kind + content


def _boxes(content: bytes) -> list[tuple[bytes, bytes]]:
  """Returns the names of successive boxes, and the boxes with their headers."""
  found, at = [], 0
  while at < len(content):
    size, kind = struct.unpack(">I4s", content[at : at + 8])
    found.append((kind, content[at : at + size]))
    at += size
  return found


def _find(box: bytes, kind: bytes) -> bytes:
  """Returns the first box of a kind that lies directly in another one, with its header."""
  return dict(reversed(_boxes(box[8:])))[kind]
