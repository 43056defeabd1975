"""Takes the picture of `stajax demo` that docs/demo.md shows, in headless Chromium. It needs the extra `browser`.

  python docs/make_demo_figure.py ADDRESS chelsea.png rocket.jpg --out docs/images/demo.jpg

ADDRESS is what the running command has printed. The photographs, a cat and the start of a rocket (CC0), lie in the
package scikit-image, in the folder `skimage/data`. A video glides over each of them, with a tone and with noise.
"""

import argparse
import shutil
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

SIZE, RATE, SECONDS, SOUND_RATE = (640, 360), 24, 5, 44100


def main() -> None:
  """Runs the command."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("address")
  parser.add_argument("photographs", nargs="+", type=Path)
  parser.add_argument("--out", type=Path, default=Path("docs/images/demo.jpg"))
  arguments = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
    video = Path(folder) / "cat and rocket.mp4"
    write_video(video, arguments.photographs)
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(arguments.address)
    page.set_input_files("#pick", video)
    page.locator("#list li.done", has_text=video.name).wait_for(timeout=300_000)
    page.wait_for_timeout(2000)
    page.get_by_label("Position in the video").fill("3")
    page.get_by_label("Position in the video").blur()
    page.wait_for_timeout(4000)
    page.screenshot(path=arguments.out, type="jpeg", quality=85)
    browser.close()


def write_video(path: Path, photographs: list[Path]) -> None:
  """Writes a video that glides over photographs."""
  with av.open(str(path), "w") as file:
    stream = file.add_stream("libx264", rate=RATE, options={"crf": "18"})
    stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
    sound = file.add_stream("aac", rate=SOUND_RATE, layout="mono")
    for photograph in photographs:
      image = Image.open(photograph).convert("RGB")
      width, height = min(image.width, image.height * 16 / 9), min(image.height, image.width * 9 / 16)
      for step in np.linspace(0, 1, RATE * SECONDS):
        share = 0.95 - 0.15 * step
        left, top = (image.width - share * width) * step, (image.height - share * height) * (0.35 + 0.3 * step)
        box = (left, top, left + share * width, top + share * height)
        picture = image.resize(SIZE, Image.Resampling.BICUBIC, box)
        file.mux(stream.encode(av.VideoFrame.from_image(picture)))
    file.mux(stream.encode(None))
    samples = make_sound(len(photographs))
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, 0, Fraction(1, SOUND_RATE)
    file.mux(sound.encode(frame))
    file.mux(sound.encode(None))


def make_sound(count: int) -> np.ndarray:
  """Returns a tone that glides up and down, and noise for every part but the first: (samples,) float32."""
  time = np.arange(SOUND_RATE * SECONDS) / SOUND_RATE
  tone = 0.2 * np.sin(2 * np.pi * np.cumsum(500 + 250 * np.sin(2 * np.pi * time)) / SOUND_RATE) * (time % 1.5 < 0.9)
  noise = np.random.default_rng(0).normal(0, 0.1, ((count - 1) * len(time),))
  return np.concatenate([tone, noise]).astype(np.float32)


if __name__ == "__main__":
  main()
