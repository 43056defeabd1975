"""Looks up the values of the frames that were drawn, in tables and sets of records; plain NumPy.

Legend: b targets, n fragments of a group, t frames of a fragment, c categories.
"""

from __future__ import annotations

import numpy as np

from stajax.data import sampler
from stajax.data.batch_settings import NetworkInputs, StoredStages, TrainingSet
from stajax.data.schema import SOUND_COLUMNS
from stajax.data.shards import read_bytes
from stajax.media.spectrogram import EPSILON, NUM_BINS, WINDOW_COLUMNS

_WHOLE = (0.0, 0.0, 1.0, 1.0)  # the box of a whole frame


class Lookup:
  """Finds the values of targets, which are frame ids (b,), and of their companions."""

  def __init__(self, training_set: TrainingSet, inputs: NetworkInputs, seed: int) -> None:
    """Prepares the look-up.

    Args:
      training_set: The frames and their tables.
      inputs: The inputs of the network.
      seed: The seed of the companions.
    """
    self._set, self._inputs, self._records = training_set, inputs, training_set.records
    self._draw_group = sampler.make_draw_group(
      inputs.companions, seed, inputs.num_times, training_set.partner_tags, self._records.num_frames
    )

  def frames(self, target: np.ndarray) -> list[bytes]:
    """Returns the JPEG files (b·n·t,) of the frames of their groups."""
    return read_bytes(self._records.frames, self._fragments(*self._group(target)).ravel(), "image")

  def stored(self, target: np.ndarray, view: np.ndarray, stored: StoredStages) -> list[np.ndarray]:
    """Returns stages (b, n, t, h, w, c) of the frames of their groups; a whole group has the target's view (b,)."""
    frames = self._fragments(*self._group(target))
    middle = frames[..., self._inputs.num_times // 2, None]

    def read(stage: str, ids: np.ndarray) -> np.ndarray:
      return stored.features.read(stage, ids, np.broadcast_to(view[:, None, None], ids.shape))

    return [read(stage, middle if number == 1 else frames) for stage, number in stored.num_times.items()]

  def pseudo_fixations(self, target: np.ndarray) -> np.ndarray:
    """Returns the maps (b·n, h, w) uint8 of their groups."""
    assert self._set.maps is not None
    clip, frame = self._group(target)
    return self._set.maps.read((self._records.first_frame[clip] + frame).ravel())

  def frame_boxes(self, target: np.ndarray) -> np.ndarray:
    """Returns the boxes (b, n, t, 4) float32 of the frames of their groups."""
    return self._boxes(self._fragments(*self._group(target)))

  def numbers(self, target: np.ndarray) -> dict[str, np.ndarray]:
    """Returns everything else, as arrays (b, n, …)."""
    records, labels, switch = self._records, self._set.labels, self._set.switch
    clip, frame = self._group(target)
    frame_id, has_sound = records.first_frame[clip] + frame, records.has_sound[clip]
    is_heard = has_sound if switch is None else has_sound & (switch[frame_id] != 0)
    found = {
      "switch": is_heard.astype(np.float32),
      "tags": records.tags[clip] if labels is None else labels[frame_id].astype(np.float32),
      "clip": clip.astype(np.int32),
      "frame": frame.astype(np.int32),
    }
    if self._inputs.num_times:
      found["box"] = self._boxes(self._fragments(clip, frame))
    if self._inputs.sound:
      found |= self._sound(clip, frame)
    if self._set.maps is not None:
      found["weight"] = self._set.maps.weights[frame_id]
    return found

  def _group(self, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the clip and the frame (b, n) of each node."""
    clip = self._records.clip_of_frame[target]
    return self._draw_group(clip, target - self._records.first_frame[clip])

  def _fragments(self, clip: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Returns frame ids (b, n, t)."""
    near = sampler.fragment_frames(frame, self._records.num_frames[clip], self._inputs.num_times)
    return self._records.first_frame[clip][..., None] + near

  def _boxes(self, frame_id: np.ndarray) -> np.ndarray:
    box = _WHOLE if self._set.boxes is None else self._set.boxes[frame_id]
    return np.broadcast_to(box, (*frame_id.shape, 4)).astype(np.float32)

  def _sound(self, clip: np.ndarray, frame: np.ndarray) -> dict[str, np.ndarray]:
    """Returns windows (b, n, 257, 98) float16, 0 for clips without sound, and float32 values that normalise them."""
    records = self._records
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
      if (
        last - first == WINDOW_COLUMNS - 1 and first < SOUND_COLUMNS <= last
      ):  # as most windows are; this copies neither record as a whole
        windows[place][:, : SOUND_COLUMNS - first] = left[:, first:]
        windows[place][:, SOUND_COLUMNS - first :] = right[:, : last + 1 - SOUND_COLUMNS]
      else:  # reflected at an end of the sound
        windows[place] = np.concatenate([left, right], axis=1).take(columns[i], axis=1)
    return found
