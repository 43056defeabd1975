"""The files that the page offers for a video: all that `stajax predict` writes, and a copy that browsers play."""

import re
import zipfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pydantic

from stajax.demo.analysis import FINAL, NO_SOUND, Analysis
from stajax.media import isolated
from stajax.media.video_writer import VideoWriter
from stajax.predict.outputs import Output, Provenance
from stajax.predict.per_video import TimedMap, smooth_in_time, write_outputs
from stajax.predict.wanted import Wanted, make_outputs

COPY = "copy"
"""The copy that browsers play."""
COPY_SIDE = 1280
"""The longer side of the copy, in pixels, at most."""
NAME = "video"
"""What the names of files begin with in their folder; nothing there depends on what the video is called."""
BLOCK = 16
CRF = "crf=20"

KINDS = {
  "overlay": "Overlay video",
  "maps": "Maps",
  "pictures": "Maps as pictures",
  "numbers": "Numbers of every frame",
  "table": "Numbers as a table",
  "boxes": "Boxes",
  "crop": "Crop windows",
  "cropped": "Cropped video",
  "blocks": "Weights of blocks",
  "all": "Everything",
}
"""The files by their kinds, with their titles for people."""

ASPECTS = ("9:16", "1:1", "4:5", "16:9")


class Order(pydantic.BaseModel):
  """What somebody wants to download.

  Attributes:
    kind: A kind of `KINDS`, or `COPY`.
    view: Whose maps are used.
    opacity: How opaque the overlay is where a map has its maximum.
    smooth: The standard deviation, in seconds, of a Gaussian that smooths the maps in time; 0 for none.
    aspect: The shape of crops, such as 9:16.
    boxes: The largest number of boxes of a frame.
  """

  model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

  kind: str
  view: str = FINAL
  opacity: Annotated[float, pydantic.Field(ge=0, le=1)] = 0.75
  smooth: Annotated[float, pydantic.Field(ge=0, le=10)] = 0.0
  aspect: str = ASPECTS[0]
  boxes: Annotated[int, pydantic.Field(ge=1, le=20)] = 3

  @property
  def wanted(self) -> Wanted:
    """What `stajax predict` writes for it."""
    takes, is_all = self.kind, self.kind == "all"
    formats = {"overlay": "mp4", "maps": "npz", "pictures": "png", "numbers": "json", "table": "csv"}
    crops = takes in ("crop", "cropped") or is_all
    return Wanted(
      format="npz,png,mp4,json,csv" if is_all else formats.get(takes, "json"),
      opacity=self.opacity,
      roi=self.boxes if takes == "boxes" or is_all else None,
      blocks=BLOCK if takes == "blocks" or is_all else None,
      crop=self.aspect if crops else None,
      encode=CRF if takes == "cropped" or is_all else None,
    )


class OrderError(ValueError):
  """An order is not possible; one line."""


def read_order(text: bytes, views: Collection[str]) -> Order:
  """Reads an order.

  Args:
    text: What the page sent, JSON.
    views: The views that the video has.

  Raises:
    OrderError: It is not an order, or asks for what there is not.
  """
  try:
    order = Order.model_validate_json(text)
  except pydantic.ValidationError as error:
    first = error.errors()[0]
    raise OrderError(" ".join(["an order:", *map(str, first["loc"]), first["msg"]])) from None
  known = {"kind": (*KINDS, COPY), "view": views, "aspect": ASPECTS}
  for name, values in known.items():
    if getattr(order, name) not in values:
      raise OrderError(f"an order: {name}: expected one of {', '.join(values)}")
  return order


class _Watch(Output):
  """Tells how far an order is."""

  def __init__(self, expected: float, advance: Callable[[float], None]) -> None:
    self._expected, self._advance = max(expected, 1), advance

  def add_frame(self, frame: Any) -> None:
    """Counts the frame."""
    self._advance(0.99 * min(frame.number / self._expected, 1))


def make_file(found: Analysis, order: Order, folder: Path, advance: Callable[[float], None]) -> Path:
  """Makes what was ordered.

  Args:
    found: The video.
    order: What is wanted of it.
    folder: An empty folder for it.
    advance: Takes the part that is done; what it raises ends the work.

  Returns:
    One file, which is a zip where the kind has several.

  Raises:
    MediaError: The video is damaged.
    OSError: The file cannot be written.
  """
  if order.kind == COPY:
    return _copy(found.provenance, folder / "copy.mp4", advance)
  maps: Iterator[TimedMap] = found.maps(order.view)
  if order.smooth:
    maps = smooth_in_time(maps, order.smooth * found.provenance.rate)
  settings = {"view": order.view, "smooth": order.smooth}
  is_heard = found.provenance.has_sound and not order.view.endswith(NO_SOUND)
  provenance = replace(found.provenance, has_sound=is_heard, settings=settings, notes=[*found.provenance.notes])
  frames = provenance.info.duration * provenance.info.rate
  outputs = make_outputs(folder, NAME, provenance, order.wanted)
  write_outputs(maps, provenance, [*outputs, _Watch(frames, advance)])
  return _one_file(folder, order, title_stem(provenance.title))


def title_stem(title: str) -> str:
  """Returns what the names of downloads begin with, given the name of a video as `clean_title` gives it."""
  return Path(title).stem or NAME


def clean_title(name: str) -> str:
  """Returns the last part of a file's name or path of any system, without what cannot be in a name of a file."""
  last = re.split(r"[/\\]", name)[-1]
  kept = "".join(" " if x in '<>:"|?*' else x for x in last if x.isprintable())
  return kept.strip(" .")[-80:].strip(" .") or NAME


def _one_file(folder: Path, order: Order, stem: str) -> Path:
  """Returns the file that was ordered among those that were made for it."""
  made = sorted(path for path in folder.rglob("*") if path.is_file())
  asked = {"boxes": ".roi.", "crop": ".crop.", "cropped": ".encoded.", "blocks": ".blocks", "numbers": ".json"}
  if order.kind in asked:
    made = [path for path in made if path.name.startswith(NAME + asked[order.kind])]
  elif order.kind != "all":
    made = [path for path in made if path.suffix != ".json"]
  if len(made) == 1:
    return made[0]
  target = folder / f"{NAME}.{order.kind if order.kind != 'all' else 'stajax'}.zip"
  with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
    for path in made:
      inside = path.relative_to(folder).as_posix()
      archive.write(path, stem + inside.removeprefix(NAME))
  for path in made:
    path.unlink()
  return target


def _copy(provenance: Provenance, target: Path, advance: Callable[[float], None]) -> Path:
  """Writes the video as H.264 with its sound, not larger than a screen."""
  info = provenance.info
  share = min(1.0, COPY_SIDE / max(provenance.size))
  width, height = (max(1, round(side * share)) for side in provenance.size)
  with VideoWriter(target, info, [], isolated.add_sound, size=(width, height)) as writer:
    for time, picture in isolated.native_frames(info.path, (height, width), decoding=info.decoding):
      writer.write(time, picture)
      advance(0.99 * min(time / max(info.duration, 1e-3), 1))
  return target
