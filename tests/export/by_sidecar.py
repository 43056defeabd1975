"""Computes the maps of a video from the files of `stajax export` alone: whatever it knows is in the sidecar.

  python by_sidecar.py EXPORT VIDEO.npz OUT.npz

VIDEO.npz has `frames` (n, S, S, 3) uint8 on the grid, `samples` at 16 kHz (none without sound), and for programs with
companions `long` (n, 2), the frames of long companions. Tests run it in a process that must not load stajax.
"""

import json
import sys
from pathlib import Path

import jax
import jax.export
import numpy as np
import scipy.signal

BATCH = 4


def reflect(index, count):
  """Finds the frame at an index past the ends, one step after the other."""
  while count > 1 and not 0 <= index < count:
    index = -index if index < 0 else 2 * (count - 1) - index
  return index if count > 1 else 0


def windows(samples, times, sound):
  """Returns the seconds of sound around times, (n, bins, columns)."""
  _, _, power = scipy.signal.spectrogram(
    samples, sound["sample_rate"], nperseg=sound["segment"], noverlap=sound["segment"] - sound["hop"]
  )
  x = np.log(power + sound["floor"])
  x = (x - x.mean()) / (x.std() + sound["epsilon"])
  found = []
  for time in times:
    middle = int(np.rint((time * sound["sample_rate"] - sound["segment"] / 2) / sound["hop"]))
    half = sound["columns"] // 2
    found.append(x[:, [reflect(j, x.shape[1]) for j in range(middle - half, middle + half)]])
  return np.array(found, np.float32)


def groups(about, count, long):
  """Returns the middle frames of the fragments of every group, (n, fragments)."""
  found = []
  for i in range(count):
    row = [i]
    if "short companion 1" in about["program"]["fragments"]:
      row += [reflect(i + offset, count) for offset in about["preprocessing"]["companions"]["short_offsets"]]
    if "long companion 1" in about["program"]["fragments"]:
      row += long[i].tolist()
    found.append(row)
  return np.array(found)


def blur_in_time(maps, sigma, reach):
  result = []
  for i in range(len(maps)):
    near = [j for j in range(len(maps)) if abs(i - j) <= np.ceil(reach * sigma)]
    weights = np.exp([-0.5 * ((i - j) / sigma) ** 2 for j in near])
    result.append(np.tensordot(weights / weights.sum(), maps[near], 1))
  return np.array(result)


def predict(folder, frames, samples, long):
  about = json.loads((folder / "export.json").read_text())
  before, after = about["preprocessing"], about["postprocessing"]
  program = jax.export.deserialize(bytearray((folder / "model.stablehlo").read_bytes()))
  count, rate = len(frames), before["grid"]["rate"]
  if len(samples):
    sound, heard = windows(samples, np.arange(count) / rate, before["sound"]), np.ones(count, np.float32)
  else:
    sound = np.zeros((count, before["sound"]["bins"], before["sound"]["columns"]), np.float32)
    heard = np.zeros(count, np.float32)
  chosen = groups(about, count, long)
  offsets = before["fragment"]["offsets"]
  fragments = np.array([[[reflect(i + offset, count) for offset in offsets] for i in row] for row in chosen])
  inputs = frames[fragments], sound[chosen], heard[chosen]
  if len(about["program"]["fragments"]) == 1:
    inputs = tuple(x[:, 0] for x in inputs)
  call = jax.jit(program.call)
  maps = np.concatenate([call(*(x[at : at + BATCH] for x in inputs)) for at in range(0, count, BATCH)])
  if seconds := after["time_blur"]["seconds"]:
    maps = blur_in_time(maps, seconds * rate, after["time_blur"]["reach"])
  return maps / maps.max(axis=(1, 2), keepdims=True)


if __name__ == "__main__":
  sys.modules["stajax"] = None  # whoever imports it fails
  with np.load(sys.argv[2]) as video:
    np.savez(sys.argv[3], maps=predict(Path(sys.argv[1]), video["frames"], video["samples"], video["long"]))
