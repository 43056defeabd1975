"""Draws the picture of README from a trained quickstart: frames, maps and viewers of rendered clips.

  python docs/make_figures.py runs/quickstart --out docs/images/example.png

A row is a held-out clip; SCAM+ is told its tag, the final map is not. One column has the final map of the same frames
with the sound of the next row's clip. The text is in a middle grey on a transparent ground, so it can be read on light
and on dark pages.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stajax.evaluate.methods import ablation_methods, model_methods
from stajax.eyetracking import StavisVideo, read_tree
from stajax.report.overlay import heat_overlay
from stajax.report.table_1 import ROWS
from stajax.senses import Senses

SIDE, GAP, HEAD = 176, 8, 34  # pixels
GREY = (128, 137, 149, 255)
SCAM_PLUS = ROWS[-1].method
COLUMNS = ("a rendered clip", "SCAM+, told the tag", "final map, no tag", "… other sound", "ten sampled viewers")
OTHER_SOUND = Senses(sound="other")
VIDEOS = ("heldout_00004", "heldout_00002")  # the sound of each belongs to an object in the other
FRAME = 4  # half a second in: long companions are apart, and objects have moved


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("run", type=Path, help="the work folder of a quickstart")
  parser.add_argument("--out", type=Path, default=Path("docs/images/example.png"))
  parser.add_argument("--videos", nargs="+", default=VIDEOS, help="held-out clips, a row each")
  parser.add_argument("--frame", type=int, default=FRAME)
  arguments = parser.parse_args(argv)
  tree = arguments.run / "data" / "heldout_tree"
  videos = [video for name in arguments.videos for video in read_tree(tree).videos if video.name == name]
  told = _maps_of(ablation_methods(arguments.run, 8, False, tree, videos).maps[0], videos, arguments.frame, SCAM_PLUS)
  predicted = model_methods(arguments.run, 8, videos, [OTHER_SOUND]).maps[0]
  free, other = (_maps_of(predicted, videos, arguments.frame, f"final{end}") for end in ("", OTHER_SOUND.suffix))
  rows = [_row(video, arguments.frame, maps) for video, *maps in zip(videos, told, free, other, strict=True)]
  arguments.out.parent.mkdir(parents=True, exist_ok=True)
  draw(rows).save(arguments.out, optimize=True)
  print(arguments.out)


def _maps_of(method_maps, videos: Sequence[StavisVideo], frame: int, method: str) -> list[np.ndarray]:
  """Returns the maps (h, w) in [0, 1] that a method makes for one frame of each video."""
  return [next(iter(method_maps(video, [frame])))[1][method][0] / 255 for video in videos]


def _row(video: StavisVideo, frame: int, maps: Sequence[np.ndarray]) -> list[Image.Image]:
  """Returns the pictures of a clip: the frame, the maps over it, and the viewers."""
  picture = np.asarray(Image.open(video.frame_paths[frame]).convert("RGB"))
  layers = [picture, *(heat_overlay(picture, values) for values in (*maps, video.density(frame) / 255))]
  images = [Image.fromarray(layer).resize((SIDE, SIDE), Image.Resampling.LANCZOS) for layer in layers]
  dots = ImageDraw.Draw(images[-1])
  for y, x in (np.argwhere(video.fixations(frame)) + 0.5) * SIDE / len(picture):
    dots.circle((x, y), 4, fill="white", outline="black")
  return images


def draw(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
  """Returns the rows as one picture with a head line that names the columns."""
  columns = len(rows[0])
  size = (columns * (SIDE + GAP) - GAP, HEAD + len(rows) * (SIDE + GAP) - GAP)
  canvas, font = Image.new("RGBA", size), ImageFont.load_default(17)
  text = ImageDraw.Draw(canvas)
  for column, title in enumerate(COLUMNS):
    text.text((column * (SIDE + GAP) + SIDE / 2, HEAD / 2 - 3), title, GREY, font, anchor="mm")
  for number, row in enumerate(rows):
    for column, image in enumerate(row):
      canvas.paste(image, (column * (SIDE + GAP), HEAD + number * (SIDE + GAP)))
  return canvas


if __name__ == "__main__":
  main()
