"""MPEG transport streams with several programs, as broadcasts send them."""

from pathlib import Path

import av
import numpy as np


def program(number: int) -> dict[str, str]:
  """Returns the options of a transport stream whose only program has a number and streams of its own."""
  ids = {"mpegts_service_id": number, "mpegts_pmt_start_pid": 4096 + number, "mpegts_start_pid": 256 + 16 * number}
  return {name: str(value) for name, value in ids.items()}


def write_radio(path: Path, number: int, sound: np.ndarray, rate: int = 48000) -> Path:
  """Writes a program of sound (1, n) alone."""
  with av.open(str(path), "w", options=program(number)) as file:
    stream = file.add_stream("aac", rate=rate, layout="mono")
    wave = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
    wave.sample_rate, wave.pts = rate, 0
    for packet in stream.encode(wave) + stream.encode(None):
      file.mux(packet)
  return path


def join_programs(target: Path, parts: dict[int, Path]) -> Path:
  """Writes the programs of several transport streams into one, packet by packet in turn; the first one is ahead."""
  streams = [_packets(path) for path in parts.values()]
  content, places = [_table_of_programs(list(parts))], [0] * len(streams)
  while unfinished := [index for index, packets in enumerate(streams) if places[index] < len(packets)]:
    which = min(unfinished, key=lambda index: places[index] / len(streams[index]) - 0.1 * (index == 0))
    packet = streams[which][places[which]]
    places[which] += 1
    if _identifier(packet) not in (0, 17):  # tables of one program alone
      content.append(packet)
  target.write_bytes(b"".join(content))
  return target


def _packets(path: Path) -> list[bytes]:
  content = path.read_bytes()
  return [content[at : at + 188] for at in range(0, len(content), 188)]


def _identifier(packet: bytes) -> int:
  return int.from_bytes(packet[1:3]) & 0x1FFF


def _table_of_programs(numbers: list[int]) -> bytes:
  """Returns the packet with the table of programs, as ISO/IEC 13818-1, 2.4.4.3 defines it."""
  entries = b"".join(number.to_bytes(2) + (0xE000 | 4096 + number).to_bytes(2) for number in numbers)
  section = b"\x00" + (0xB000 | 9 + len(entries)).to_bytes(2) + b"\x00\x01\xc1\x00\x00" + entries
  section += _checksum(section).to_bytes(4)
  return (b"\x47\x40\x00\x10\x00" + section).ljust(188, b"\xff")


def _checksum(content: bytes) -> int:
  value = 0xFFFFFFFF
  for byte in content:
    value ^= byte << 24
    for _ in range(8):
      value = value << 1 & 0xFFFFFFFF ^ (0x04C11DB7 if value & 0x80000000 else 0)
  return value
