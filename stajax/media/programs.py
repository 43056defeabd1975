"""The programs of an MPEG transport stream, as broadcasts send several in one file: which streams belong together.

FFmpeg knows them but PyAV does not tell them. They are read from the tables at the beginning of the file: that of
programs (ISO/IEC 13818-1, 2.4.4.3) names for each one a table of its streams (2.4.4.8).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

_READ = 2**22  # bytes; tables are repeated several times a second
_SIZES = (188, 192, 204)  # of packets, in which 4 or 16 bytes of something else may precede or follow 188


def programs(path: Path) -> dict[int, set[int]]:
  """Returns the stream identifiers of each program by the program's number; none if there are no such tables."""
  with path.open("rb") as file:
    content = file.read(_READ)
  tables, found = dict[int, int](), dict[int, set[int]]()  # the numbers of programs by their tables' identifiers
  for identifier, section in _sections(content, tables):
    kind, entries = section[0], section[8:-4]  # between the header and the checksum
    if identifier == 0 and kind == 0:
      for at in range(0, len(entries) - 3, 4):
        number = int.from_bytes(entries[at : at + 2])
        if number:  # 0 is the table of the network
          tables[_identifier(entries[at + 2 :])] = number
    elif identifier in tables and kind == 2:
      found.setdefault(tables[identifier], set()).update(_streams(section))
      if len(found) == len(tables):
        break
  return found


def _streams(section: bytes) -> Iterator[int]:
  """Yields the identifiers of the streams in the table of a program."""
  at, end = 12 + _length(section[10:]), len(section) - 4
  while at + 5 <= end:
    yield _identifier(section[at + 1 :])
    at += 5 + _length(section[at + 3 :])


def _sections(content: bytes, tables: Mapping[int, int]) -> Iterator[tuple[int, bytes]]:
  """Yields the whole sections of the table of programs and of known tables, with the identifiers of their packets."""
  partial = dict[int, bytes]()
  for packet in _packets(content):
    identifier, control = _identifier(packet[1:]), packet[3] >> 4 & 3
    begins, at = bool(packet[1] & 0x40), 4 if control == 1 else 5 + packet[4]
    if not control & 1 or at >= 188 or (identifier and identifier not in tables):  # no content, or pictures and sound
      continue
    payload = packet[at:]
    if begins:
      payload = payload[1 + payload[0] :]
    elif identifier in partial:
      payload = partial.pop(identifier) + payload
    else:
      continue
    length = 3 + _length(payload[1:])
    if len(payload) < min(length, 1024):  # no table is longer
      partial[identifier] = payload
    elif 12 <= length <= len(payload):
      yield identifier, payload[:length]


def _packets(content: bytes) -> Iterator[bytes]:
  """Yields packets of 188 bytes, each of which begins with its mark; content that has none is passed over."""
  at = 0
  while (at := content.find(b"\x47", at)) >= 0 and at + 188 <= len(content):
    if len(content) - at < 2 * _SIZES[-1] or any(content[at + size] == 0x47 for size in _SIZES):
      yield content[at : at + 188]
      at += 188
    else:
      at += 1


def _identifier(content: bytes) -> int:
  return int.from_bytes(content[:2]) & 0x1FFF


def _length(content: bytes) -> int:
  return int.from_bytes(content[:2]) & 0xFFF
