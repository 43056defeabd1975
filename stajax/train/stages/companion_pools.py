"""Fragments of training clips that networks use at inference as companions of other clips' frames."""

from collections.abc import Callable, Sequence

import numpy as np

from stajax import companions
from stajax import model as models
from stajax.inference.clip import Clip
from stajax.inference.dense import DenseNetwork
from stajax.networks import GRANULAR, NETWORKS
from stajax.train.training_data import TrainingData

_CHUNK = 32  # fragments that are computed together


def compute_companions(
  data: TrainingData, seed: int, network: Callable[[str], DenseNetwork], names: Sequence[str] = GRANULAR
) -> dict[str, np.ndarray]:
  """Computes fragments of training clips of every category, as the networks with cross-clip companions see them.

  Args:
    data: The training clips.
    seed: The seed that chooses the fragments.
    network: A function of a network's name that returns the network.
    names: The networks of which those with cross-clip companions need fragments.

  Returns:
    The contents of `stajax.model.Model.companions`.
  """
  items = companions.pool_items(data.records.tags, data.records.num_frames, seed)
  place = np.array([(tag, i) for tag, members in enumerate(items) for i in range(len(members))])
  chosen = np.concatenate(items)
  clips = np.full((len(items), max(map(len, items))), -1, np.int32)
  clips[*place.T] = chosen[:, 0]
  pools: dict[str, np.ndarray] = {}
  crossing = [name for name in names if NETWORKS[name].companions == "cross"]
  for start in range(0, len(chosen) if crossing else 0, _CHUNK):
    part = slice(start, start + _CHUNK)
    for name, fragments in _compute_fragments(data, chosen[part].tolist(), network, crossing).items():
      if name not in pools:
        pools[name] = np.zeros((*clips.shape, *fragments.shape[1:]), np.float16)
      pools[name][*place[part].T] = fragments
  return {"clips": clips, **pools}


def _compute_fragments(
  data: TrainingData, items: list[tuple[int, int]], network: Callable[[str], DenseNetwork], names: Sequence[str]
) -> dict[str, np.ndarray]:
  """Returns the fragments (n, h, w, c) float16 of (clip, frame) pairs, by their names in the model folder."""
  clip, middles = _join_fragments(data, items), np.arange(1, 3 * len(items), 3)
  fragments = {}
  for name in names:
    switches = {name: clip}
    if NETWORKS[name].hears:
      switches[name + models.HEARD] = clip.with_switch(np.ones(len(clip)))
    for key, switched in switches.items():
      fragments[key] = np.asarray(network(name).nodes(switched)[middles], np.float16)
  return fragments


def _join_fragments(data: TrainingData, items: list[tuple[int, int]]) -> Clip:
  """Returns a clip with every fragment's three frames in a row; only its middle frames have the right neighbours."""
  samples, frames = [], []
  for index, frame in items:
    clip = data.clip(index)
    at = clip.neighbours(np.array([frame]), np.array([-1, 0, 1]))[0]
    samples += [clip.samples[i] for i in at.tolist()]
    frames.append(data.records.first_frame[index] + at)
  ids = np.concatenate(frames)
  return Clip(samples, boxes=data.table("boxes")[ids]).with_switch(data.switch[ids])
