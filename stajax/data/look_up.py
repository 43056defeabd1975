"""What belongs to the frames that were drawn: looked up in tables and read from the sets, in plain NumPy.

Legend: b targets, n fragments of a group, t frames of a fragment, c categories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from stajax.data import sampler
from stajax.data.feature_set import FeatureSet
from stajax.data.map_set import MapSet
from stajax.data.records import Records
from stajax.data.schema import SOUND_COLUMNS
from stajax.data.shards import read_bytes
from stajax.media.spectrogram import EPSILON, NUM_BINS, WINDOW_COLUMNS

_WHOLE = (0.0, 0.0, 1.0, 1.0)  # the box of a whole frame


@dataclass(frozen=True)
class LookUp:
  """Finds what belongs to targets, frame ids (b,); see `stajax.data.batches.batches` for what there is.

  draw_group: adds their companions (`stajax.data.sampler.make_draw_group`).
  """

  records: Records
  maps: MapSet | None
  num_times: int
  sound: bool
  draw_group: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
  boxes: np.ndarray | None = None
  switch: np.ndarray | None = None
  labels: np.ndarray | None = None

  def frames(self, target: np.ndarray) -> list[bytes]:
    """JPEG files (b·n·t,) of the frames of their groups."""
    return read_bytes(self.records.frames, self._fragments(*self._group(target)).ravel(), "image")

  def stored(
    self, target: np.ndarray, view: np.ndarray, features: FeatureSet, stages: Mapping[str, int]
  ) -> list[np.ndarray]:
    """Stages (b, n, t, h, w, c) of the frames of their groups, all of a group as the target's view (b,)."""
    needed = self._fragments(*self._group(target))
    middle = needed[..., self.num_times // 2, None]
    frames = {stage: middle if number == 1 else needed for stage, number in stages.items()}
    return [features.read(stage, ids, np.broadcast_to(view[:, None, None], ids.shape)) for stage, ids in frames.items()]

  def pseudo_fixations(self, target: np.ndarray) -> np.ndarray:
    """Maps (b·n, h, w) uint8 of their groups."""
    clip, frame = self._group(target)
    return self.maps.read((self.records.first_frame[clip] + frame).ravel())

  def frame_boxes(self, target: np.ndarray) -> np.ndarray:
    """Boxes (b, n, t, 4) float32 of the frames of their groups."""
    return self._boxes(self._fragments(*self._group(target)))

  def numbers(self, target: np.ndarray) -> dict[str, np.ndarray]:
    """All else, arrays (b, n, …)."""
    records = self.records
    clip, frame = self._group(target)
    frame_id, has_sound = records.first_frame[clip] + frame, records.has_sound[clip]
    heard = has_sound if self.switch is None else has_sound & (self.switch[frame_id] != 0)
    found = {
      "switch": heard.astype(np.float32),
      "tags": records.tags[clip] if self.labels is None else self.labels[frame_id].astype(np.float32),
      "clip": clip.astype(np.int32),
      "frame": frame.astype(np.int32),
    }
    if self.num_times:
      found["box"] = self._boxes(self._fragments(clip, frame))
    if self.sound:
      found |= self._sound(clip, frame)
    if self.maps is not None:
      found["weight"] = self.maps.weights[frame_id]
    return found

  def _group(self, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clip and frame (b, n)."""
    clip = self.records.clip_of_frame[target]
    return self.draw_group(clip, target - self.records.first_frame[clip])

  def _fragments(self, clip: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Frame ids (b, n, t)."""
    near = sampler.fragment_frames(frame, self.records.num_frames[clip], self.num_times)
    return self.records.first_frame[clip][..., None] + near

  def _boxes(self, frame_id: np.ndarray) -> np.ndarray:
    box = _WHOLE if self.boxes is None else self.boxes[frame_id]
    return np.broadcast_to(box, (*frame_id.shape, 4)).astype(np.float32)

  def _sound(self, clip: np.ndarray, frame: np.ndarray) -> dict[str, np.ndarray]:
    """Windows (b, n, 257, 98) float16 as stored, 0 for clips without sound; what normalises them, (b, n) float32."""
    records = self.records
    has_sound = records.has_sound[clip]
    found = {
      "sound": np.empty((*clip.shape, NUM_BINS, WINDOW_COLUMNS), np.float16),
      "sound_mean": np.where(has_sound, records.sound_mean[clip], np.float32(0)),
      "sound_deviation": np.where(has_sound, records.sound_std[clip] + np.float32(EPSILON), np.float32(1)),
    }
    windows, heard = found["sound"], np.nonzero(has_sound)
    windows[~has_sound] = 0
    clip, frame = clip[heard], frame[heard]
    parts, columns = sampler.sound_windows(frame, records.rate[clip], records.num_columns[clip])
    pieces = records.sound_columns((records.first_sound[clip][:, None] + parts).ravel())
    for i, place in enumerate(zip(*heard, strict=True)):
      (left, right), first, last = pieces[2 * i : 2 * i + 2], columns[i, 0], columns[i, -1]
      if last - first == WINDOW_COLUMNS - 1 and first < SOUND_COLUMNS <= last:  # most are: without a copy of both
        windows[place][:, : SOUND_COLUMNS - first] = left[:, first:]
        windows[place][:, SOUND_COLUMNS - first :] = right[:, : last + 1 - SOUND_COLUMNS]
      else:  # reflected at an end of the sound
        windows[place] = np.concatenate([left, right], axis=1).take(columns[i], axis=1)
    return found
