"""Writes a tiny AVE_Dataset and a tiny folder of recorded videos with fixations, to try the whole method on.

  python -m helpers.ave_tree FOLDER

FOLDER then has AVE_Dataset, `recorded` for `stajax prepare videos`, and `tags.csv` with the tags of these. A tag has a
colour and a pitch, so it can be seen and heard.
"""

import sys
from pathlib import Path

import numpy as np

from helpers.media_files import write_video
from stajax.prepare.layouts.ave import ANNOTATIONS, SPLITS

ROWS = (
  *(("Bark", "bark_a", "train"), ("Bark", "bark_b", "val"), ("Violin, fiddle", "violin_a", "train")),
  *(("Violin, fiddle", "violin_b", "test"), ("Truck", "both", "train"), ("Bus", "both", "train")),
  ("Bus", "bus_a", "train"),
)
"""Categories, videos and parts; one video has two tags."""
RECORDED = {"dog": "Bark", "fiddle": "Violin, fiddle", "coach": "Bus"}
LOOKS = {
  "Bark": (300, (220, 60, 40)),
  "Violin, fiddle": (900, (40, 200, 60)),
  "Truck": (2500, (60, 80, 230)),
  "Bus": (2500, (230, 220, 40)),
}
"""The pitch in hertz and the colour of a tag."""
FRAMES, HEIGHT, WIDTH, RATE, SOUND_RATE = 8, 48, 64, 8, 44100


def make_clip(tags, seed):
  """Returns frames (n, h, w, 3) uint8, sound (1, samples) float32, and the place (y, x) of the last tag's square."""
  rng = np.random.default_rng(seed)
  background = np.kron(rng.integers(60, 140, (6, 8, 3)), np.ones((8, 8, 1), int))
  frames = background + rng.integers(-12, 12, (FRAMES, HEIGHT, WIDTH, 3))
  times = np.arange(round(FRAMES / RATE * SOUND_RATE)) / SOUND_RATE
  wave, place = rng.normal(0, 0.01, len(times)), (0, 0)
  for tag in tags:
    pitch, colour = LOOKS[tag]
    place = y, x = int(rng.integers(2, 30)), int(rng.integers(2, 40))
    for number, frame in enumerate(frames):  # it moves to the right
      frame[y : y + 16, x + number : x + number + 16] = colour
    wave += 0.15 * np.sin(2 * np.pi * pitch * times) * (1 + np.sin(8 * times))
  return np.clip(frames, 0, 255).astype(np.uint8), wave[None].astype(np.float32), place


def write_ave(root: Path) -> None:
  """Writes AVE_Dataset; the event of one row has no length, as some in AVE."""
  (root / "AVE").mkdir(parents=True)
  lines = {(tag, video): f"{tag}&{video}&good&0&{0 if video == 'bus_a' else 1}\n" for tag, video, _ in ROWS}
  for seed, name in enumerate(dict.fromkeys(video for _, video, _ in ROWS)):
    frames, sound, _ = make_clip([tag for tag, video, _ in ROWS if video == name], seed)
    write_video(root / "AVE" / f"{name}.mp4", frames, rate=RATE, sound=sound)
  (root / ANNOTATIONS).write_text("Category&VideoID&Quality&StartTime&EndTime\n" + "".join(lines.values()))
  for part, file in SPLITS.items():
    (root / file).write_text("".join(lines[tag, video] for tag, video, of in ROWS if of == part))


def write_recorded(root: Path, tags: Path) -> None:
  """Writes videos, a table of fixations on the square beside each, and a table of their tags."""
  root.mkdir()
  for seed, (name, tag) in enumerate(RECORDED.items(), start=100):
    frames, sound, (y, x) = make_clip([tag], seed)
    write_video(root / f"{name}.mp4", frames, rate=RATE, sound=sound)
    rng, rows = np.random.default_rng(seed), ["frame,x,y\n"]
    for number in range(FRAMES):
      places = rng.normal((x + number + 8, y + 8), 3, (6, 2)).clip(0, (WIDTH - 1, HEIGHT - 1))
      rows += [f"{number},{column:.1f},{row:.1f}\n" for column, row in places]
    (root / f"{name}.csv").write_text("".join(rows))
  tags.write_text("database,video,tag\n" + "".join(f'AVAD,{name},"{tag}"\n' for name, tag in RECORDED.items()))


if __name__ == "__main__":
  folder = Path(sys.argv[1])
  write_ave(folder / "AVE_Dataset")
  write_recorded(folder / "recorded", folder / "tags.csv")
