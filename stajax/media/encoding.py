"""How videos are encoded that are written for people and players."""

import re
from dataclasses import dataclass

CODECS = {"x264": "libx264", "x265": "libx265"}
SMALLEST = {"x264": 2, "x265": 64}
"""The smallest sides in pixels; of smaller pictures x265 writes beyond its memory."""
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")


@dataclass(frozen=True)
class Encoding:
  """The settings of an encoder.

  Attributes:
    crf: The constant rate factor, from 0 to 51: the lower, the better and larger.
    codec: x264 or x265.
    preset: How much time the encoder takes.
    strength: The difference of the quantisation parameter between places without heat and the maximum, for videos that
      are encoded with regions of interest.
  """

  crf: float = 23.0
  codec: str = "x264"
  preset: str = "medium"
  strength: int = 12

  @property
  def options(self) -> dict[str, str]:
    """The options of FFmpeg's encoder."""
    own = {} if self.codec == "x264" else {"log-level": "error"}
    if self.preset == "ultrafast":  # which would switch off what regions need
      own["aq-mode"] = "1"
    return {"crf": f"{self.crf:g}", "preset": self.preset, **self._own(own)}

  def _own(self, options: dict[str, str]) -> dict[str, str]:
    joined = ":".join(f"{name}={value}" for name, value in options.items())
    return {f"{self.codec}-params": joined} if joined else {}


def parse_encoding(text: str) -> Encoding:
  """Reads settings such as "crf=28" or "crf=28,codec=x265,preset=slow,strength=8".

  Raises:
    ValueError: The text is of another form; one line.
  """
  found: dict[str, str] = {}
  for part in text.split(","):
    name, _, value = part.strip().partition("=")
    if name not in ("crf", "codec", "preset", "strength") or not value or name in found:
      raise ValueError(f"encode {text}: expected settings such as crf=28,codec=x265,preset=slow,strength=8")
    found[name] = value
  if "crf" not in found or not re.fullmatch(r"\d{1,2}(\.\d+)?", found["crf"]) or float(found["crf"]) > 51:
    raise ValueError(f"encode {text}: expected crf=NUMBER from 0 to 51")
  if found.setdefault("codec", Encoding.codec) not in CODECS:
    raise ValueError(f"encode {text}: expected codec={' or codec='.join(CODECS)}")
  if found.setdefault("preset", Encoding.preset) not in PRESETS:
    raise ValueError(f"encode {text}: expected a preset among {', '.join(PRESETS)}")
  if not re.fullmatch(r"\d{1,2}", strength := found.get("strength", str(Encoding.strength))) or int(strength) > 50:
    raise ValueError(f"encode {text}: expected strength=NUMBER from 0 to 50")
  return Encoding(float(found["crf"]), found["codec"], found["preset"], int(strength))
