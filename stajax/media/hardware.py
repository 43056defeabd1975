"""Decoders in hardware: which of them FFmpeg knows, and which of them this machine has.

A decoder is named by FFmpeg's kind of device, such as `cuda`, `vaapi` or `videotoolbox`. Its frames come back into
memory with their side data and colours, as NV12 or P010, so the rules for orientation and colours are the same.
"""

import av
from av.codec import Codec
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.error import FFmpegError

from stajax.media.file import Decoding

_CODECS = ("h264", "hevc", "av1", "vp9", "mpeg2video", "vp8", "mjpeg")
"""Any of these decoders can tell whether a device is there."""


def why_missing(name: str) -> str:
  """Returns why this machine cannot decode by a kind of hardware, on one line; "" if it can."""
  known = hwdevices_available()
  if is_present(name):
    return ""
  reason = "this machine has none" if name in known else "FFmpeg here does not know it"
  present = [other for other in known if is_present(other)]
  return f"{reason}; found {', '.join(present) or 'no decoder in hardware'}, FFmpeg knows {', '.join(known) or 'none'}"


def is_present(name: str) -> bool:
  """Returns whether a device of this kind is there and can be opened to decode at least one of the usual codecs."""
  if name not in hwdevices_available():
    return False
  for codec in _CODECS:
    try:
      HWAccel(name).create(Codec(codec, "r"))
      return True
    except NotImplementedError:  # the device does not decode this codec, but may decode another one
      continue
    except (FFmpegError, OSError, ValueError):  # the device cannot be opened
      return False
  return False


def device(decoding: Decoding) -> HWAccel | None:
  """Returns the device that is to decode, None for software."""
  if decoding.hardware is None:
    return None
  return HWAccel(decoding.hardware, allow_software_fallback=decoding.falls_back)


def is_used(stream: av.VideoStream) -> bool:
  """Returns whether a stream that was opened with a device decodes by it; after its first frame this is certain."""
  context = stream.codec_context
  found = [config.format.name for config in context.codec.hardware_configs or () if config.format is not None]
  return context.is_hwaccel and context.format is not None and context.format.name in found
