"""What the page takes."""

from dataclasses import dataclass


class Refused(ValueError):
  """The page cannot take something; the line says so to people."""


@dataclass(frozen=True)
class UploadLimits:
  """What the page takes.

  Attributes:
    max_bytes: The size of a video.
    max_seconds: How long it may last.
    keep: How many videos the page holds.
  """

  max_bytes: int = 500_000_000
  max_seconds: float = 120.0
  keep: int = 20

  def check_bytes(self, size: int) -> None:
    """Raises Refused if a video of that many bytes is too large."""
    if size > self.max_bytes:
      found, most = (f"{round(count / 1e6, 2):,.12g} MB" for count in (size, self.max_bytes))
      raise Refused(f"This file has {found}. This page takes at most {most}; `stajax predict` takes more.")

  def check_seconds(self, seconds: float) -> None:
    """Raises Refused if a video that lasts that long is too long."""
    if seconds > self.max_seconds:
      found, most = f"{seconds:.4g} seconds", f"{self.max_seconds:g} seconds"
      raise Refused(f"This video lasts {found}. This page takes at most {most}; `stajax predict` takes more.")
