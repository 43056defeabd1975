"""Measures, on eye-tracking videos, what maps are worth for encoders and for crops.

  stajax predict --data stavis:ROOT --out MAPS
  python -m benchmarks.viewers --data ROOT --maps MAPS [--codec x264] [--preset veryfast] [--strength 12]
    [--crf 20 26 32 38] [--crop 9:16 1:1] [--parts encode crop] [--frames N]

Each video is encoded with the regions of interest of `stajax predict --encode`, made of the maps, of a Gaussian at the
centre, of a uniform map, and of the viewers' own density, which nothing can be expected to beat. The quality inside the
viewers' regions is the PSNR whose errors are weighted by their density. Curves of bits over quality (one point for each
CRF) are compared with those of plain encoding where they overlap, as Bjøntegaard does, by monotone interpolation: the
bits at equal quality, and the quality at equal bits. Crops are those of `stajax predict --crop`; of the fixations the
share inside is counted. All results are means over videos.
"""

import argparse
import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image
from scipy.interpolate import PchipInterpolator

from stajax.eyetracking import StavisVideo, read_tree
from stajax.maps.cropping import CropPath, parse_aspect, window_size
from stajax.maps.final import centre_factor
from stajax.maps.pseudo import resize
from stajax.media.encoding import CODECS, PRESETS, Encoding
from stajax.media.roi import Region, RegionMarker
from stajax.predict.regions import regions_of

_SIDE = 64  # of the maps of rivals


@dataclass(frozen=True)
class Seen:
  """A video, what its viewers looked at, and maps of it.

  Attributes:
    video: The video.
    frames: (n, h, w, 3) uint8; sides are even.
    maps: The maps (n, H, W) float32 in [0, 1] of each method.
  """

  video: StavisVideo
  frames: np.ndarray
  maps: dict[str, np.ndarray]

  @property
  def size(self) -> tuple[int, int]:
    """Width and height of the frames in pixels."""
    return self.frames.shape[2], self.frames.shape[1]

  @functools.cached_property
  def annotated(self) -> np.ndarray:
    """The numbers of the frames that have fixations."""
    return np.array([i for i in self.video.annotated if i < len(self.frames)])

  @functools.cached_property
  def pictures(self) -> list[av.VideoFrame]:
    """The frames as encoders take them."""
    whole = [av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24") for frame in self.frames]
    return [frame.reformat(format="yuv420p") for frame in whole]

  @functools.cached_property
  def luma(self) -> np.ndarray:
    """The luma of the annotated frames, (n, h, w) float32."""
    height = self.size[1]
    return np.stack([self.pictures[i].to_ndarray()[:height] for i in self.annotated]).astype(np.float32)

  @functools.cached_property
  def density(self) -> np.ndarray:
    """The viewers' density of the annotated frames, at their size and with a sum of 1."""
    density = resize(self.maps["viewers"][self.annotated], self.frames.shape[1:3])
    return density / density.sum(axis=(1, 2), keepdims=True)


def read(video: StavisVideo, maps: Path, limit: int) -> Seen:
  """Reads the first frames of a video and their maps."""
  frames = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in video.frame_paths[:limit]])
  frames = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
  paths = sorted((maps / video.database / video.name).glob("*.png"))[:limit]
  if len(paths) != len(frames):
    raise SystemExit(f"{maps / video.database / video.name}: {len(paths)} maps, expected {len(frames)}")
  annotated = np.array(video.annotated)
  nearest = annotated[np.abs(annotated[:, None] - np.arange(len(frames))).argmin(axis=0)].tolist()
  density = np.stack([video.density(i) for i in nearest]).astype(np.float32)
  shape = (len(frames), _SIDE, _SIDE)
  return Seen(video, frames, {
    "maps": np.stack([np.asarray(Image.open(path)) for path in paths]).astype(np.float32) / 255,
    "centre": np.broadcast_to(centre_factor(shape[1:]), shape),
    "uniform": np.ones(shape, np.float32),
    "viewers": density / density.max(axis=(1, 2), keepdims=True).clip(1e-6),
  })  # fmt: skip


Point = tuple[float, float, float]
"""Bits, and the PSNR inside the viewers' regions and of the whole picture."""


def encode(seen: Seen, encoding: Encoding, method: str | None) -> Point:
  """Encodes a video, plainly if there is no method, and measures it."""
  (width, height), file, bits, marker = seen.size, io.BytesIO(), 0, RegionMarker()
  with av.open(file, "w", format="mp4") as container:
    stream = container.add_stream(CODECS[encoding.codec], rate=round(seen.video.rate()))
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.options = {**encoding.options, "bf": "0"}
    for number, frame in enumerate(seen.pictures):
      frame.pts, frame.time_base = number, Fraction(1, round(seen.video.rate()))
      regions: list[Region] = []
      if method is not None:
        regions = regions_of(seen.maps[method][number], seen.size, encoding.strength)
      for packet in stream.encode(marker.mark(frame, regions)):
        bits += 8 * packet.size
        container.mux(packet)
    for packet in stream.encode(None):
      bits += 8 * packet.size
      container.mux(packet)
  file.seek(0)
  with av.open(file) as container:
    found = np.stack([frame.to_ndarray()[:height] for frame in container.decode(video=0)])
  return (bits, *qualities(seen, found[seen.annotated]))


def qualities(seen: Seen, found: np.ndarray) -> tuple[float, float]:
  """Returns the PSNR of luma (n, h, w) weighted by the viewers' density, and that of all pixels, in dB."""
  errors = (seen.luma - found) ** 2
  inside = (errors * seen.density).sum(axis=(1, 2)).mean()
  psnr = [10 * float(np.log10(255**2 / max(float(error), 1e-9))) for error in (inside, errors.mean())]
  return psnr[0], psnr[1]


def compare(plain: Sequence[Point], other: Sequence[Point], of: int) -> tuple[float, float]:
  """Compares two curves where they overlap: (bits at equal quality, relative; quality at equal bits, dB)."""
  curves = [np.array(sorted((point[of], np.log(point[0])) for point in points)).T for points in (plain, other)]

  def mean(x: int, y: int) -> float:
    low, high = max(curve[x].min() for curve in curves), min(curve[x].max() for curve in curves)
    if low >= high:
      raise SystemExit("--crf: the curves of bits over quality do not overlap, expected values that are further apart")
    grid = np.linspace(low, high, 200)
    first, second = (PchipInterpolator(curve[x], curve[y])(grid) for curve in curves)
    return float((second - first).mean())

  return float(np.exp(mean(0, 1)) - 1), mean(1, 0)


def crop_shares(seen: Seen, aspect: str) -> dict[str, float]:
  """Returns the share of fixations inside the crop of each method."""
  window = window_size(seen.size, parse_aspect(aspect))
  fixations = {i: np.argwhere(seen.video.fixations(i)) / seen.video.fixations(i).shape for i in seen.annotated.tolist()}
  shares: dict[str, float] = {}
  for method, maps in seen.maps.items():
    path = CropPath(seen.size, window)
    for number, (frame, saliency) in enumerate(zip(seen.frames, maps, strict=True)):
      path.add(number / seen.video.rate(), frame, saliency)
    windows = path.windows() / np.tile(seen.size, 2)
    inside = total = 0
    for i, places in fixations.items():
      x, y, width, height = windows[i]
      offset = places[:, ::-1] - (x, y)
      inside += int(((offset >= 0) & (offset < (width, height))).all(axis=1).sum())
      total += len(places)
    shares[method] = inside / total
  return shares


def table(rows: dict[str, Sequence[float]], head: Sequence[str], form: Callable[[float], str]) -> str:
  """Returns a Markdown table."""
  lines = ["| | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
  return "\n".join([*lines, *(f"| {name} | " + " | ".join(map(form, row)) + " |" for name, row in rows.items())])


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", type=Path, required=True, help="a tree in the STAViS layout")
  parser.add_argument("--maps", type=Path, required=True, help="what `stajax predict --data` wrote")
  parser.add_argument("--parts", nargs="+", choices=("encode", "crop"), default=["encode", "crop"])
  parser.add_argument("--codec", choices=tuple(CODECS), default="x264")
  parser.add_argument("--preset", choices=PRESETS, default="veryfast")
  parser.add_argument("--strength", type=int, default=Encoding.strength)
  parser.add_argument("--crf", type=int, nargs="+", default=[20, 26, 32, 38])
  parser.add_argument("--frames", type=int, default=10000, help="the first frames of each video")
  parser.add_argument("--crop", nargs="+", default=["9:16", "1:1"])
  arguments = parser.parse_args(argv)
  crops: dict[str, list[dict[str, float]]] = {aspect: [] for aspect in arguments.crop}
  encoded: dict[str, list[list[float]]] = {}
  for video in read_tree(arguments.data, None).videos:
    seen = read(video, arguments.maps, arguments.frames)
    if "crop" in arguments.parts:
      for aspect in arguments.crop:
        crops[aspect].append(crop_shares(seen, aspect))
        print(video.name, aspect, {name: round(share, 3) for name, share in crops[aspect][-1].items()}, flush=True)
    if "encode" in arguments.parts:
      settings = [Encoding(crf, arguments.codec, arguments.preset, arguments.strength) for crf in arguments.crf]
      plain = [encode(seen, setting, None) for setting in settings]
      for method in seen.maps:
        points = [encode(seen, setting, method) for setting in settings]
        row = [*compare(plain, points, 1), *compare(plain, points, 2)]
        encoded.setdefault(method, []).append(row)
        print(video.name, method, [round(value, 3) for value in row], flush=True)
  if "crop" in arguments.parts:
    methods = list(next(iter(crops.values()))[0])
    rows = {name: [np.mean([found[name] for found in crops[a]]) for a in arguments.crop] for name in methods}
    print(table(rows, arguments.crop, lambda share: f"{share:.3f}"))
  if encoded:
    rows = {name: np.mean(found, axis=0).tolist() for name, found in encoded.items()}
    head = ["bits, viewers' regions", "dB, viewers' regions", "bits, whole picture", "dB, whole picture"]
    print(table(rows, head, lambda value: f"{value:+.3f}"))
  return 0


if __name__ == "__main__":
  raise SystemExit(main())
