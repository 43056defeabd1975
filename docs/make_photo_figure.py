"""Draws the picture of README that shows the model in the package on photographs that anybody may show.

  python docs/make_photo_figure.py astronaut.png chelsea.png coffee.png rocket.jpg --out docs/images/photographs.jpg

The four lie in the package scikit-image, in the folder `skimage/data`: an astronaut (NASA, public domain), a cat, a cup
of coffee and the start of a rocket (CC0). Each is predicted as a video of one silent frame.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import stajax
from stajax.report.overlay import heat_overlay

HEIGHT, GAP = 200, 8  # pixels


def main() -> None:
  """Runs the command."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("photographs", nargs="+", type=Path)
  parser.add_argument("--out", type=Path, default=Path("docs/images/photographs.jpg"))
  arguments = parser.parse_args()
  model = stajax.load()
  columns: list[tuple[Image.Image, Image.Image]] = []
  for path in arguments.photographs:
    frame = np.asarray(Image.open(path).convert("RGB"))
    saliency = model.predict_arrays(frame[None], 1.0).maps[0]
    width = round(frame.shape[1] * HEIGHT / frame.shape[0])
    pair = (Image.fromarray(x).resize((width, HEIGHT)) for x in (frame, heat_overlay(frame, saliency)))
    columns.append((*pair,))  # pyright: ignore[reportArgumentType]
  total = sum(upper.width + GAP for upper, _ in columns) - GAP
  canvas, left = Image.new("RGB", (total, 2 * HEIGHT + GAP), "white"), 0
  for upper, lower in columns:
    canvas.paste(upper, (left, 0))
    canvas.paste(lower, (left, HEIGHT + GAP))
    left += upper.width + GAP
  canvas.save(arguments.out, quality=85)


if __name__ == "__main__":
  main()
