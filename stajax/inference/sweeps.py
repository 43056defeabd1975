"""The sweeps of the paper's appendices: SCAM+ with one setting of the C-GCN changed at inference.

No parameter depends on T_d, T_r, the number of steps m or the number of companions, so a trained network computes with
any.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from stajax import networks
from stajax.eyetracking import StavisVideo
from stajax.inference.ablation import make_sources, select_frames, switched_windows
from stajax.inference.class_maps import ClipSources, Sources, Toggles, make_dense, top_tag
from stajax.inference.clip import Clip
from stajax.inference.dense import DenseNetwork
from stajax.inference.local_devices import Device, OfThread, local_devices
from stajax.inference.predictor import to_uint8
from stajax.inference.tree_video import reach_of, video_samples
from stajax.model import Model
from stajax.scoring.videos import MethodMaps

SWEEPS: dict[str, tuple[str, tuple[float, ...]]] = {
  "discard_threshold": ("T_d", (0.2, 0.4, 0.6, 0.8, 1.0)),
  "refinement_rate": ("T_r", (0.2, 0.4, 0.6, 0.8, 1.0)),
  "reasoning_steps": ("m", (1, 2, 3, 4, 5)),
}
"""For each setting its name in the paper, and the values; they are fields of `config.Network`."""
COMPANIONS = {f"companions_{number}": number for number in (1, 2, 4)}
"""The number of companions of a target, n in §4.3, by method. Networks are trained with two, as Fig. 7 has them."""


def settings() -> dict[str, tuple[str, str, float]]:
  """Returns for each method that changes a field, such as `discard_threshold_0.4`: its title, the field, the value."""
  return {
    f"{name}_{value:g}": (f"{letter} = {value:g}", name, value)
    for name, (letter, values) in SWEEPS.items()
    for value in values
  }


def titles() -> dict[str, str]:
  """Returns the titles of all methods."""
  fields = {method: title for method, (title, _, _) in settings().items()}
  return fields | {method: f"n = {number}, {1 + number} nodes" for method, number in COMPANIONS.items()}


def method_maps(model: Model, batch: int, tags: Mapping[str, tuple[int, ...]]) -> MethodMaps:
  """Returns a function that computes SCAM+ by every method of `titles`, for native frames of a video.

  Several threads may ask at the same time; each gets a device.

  Args:
    model: The model, with at least `stajax.networks.tag_networks` loaded.
    batch: The number of frames that are computed together.
    tags: The true tags by `DATABASE/VIDEO` or `VIDEO`; others get the category that the coarse classifiers predict.
  """
  usual = make_sources(model, batch)
  switch = make_dense(networks.SWITCH, model.variables[networks.SWITCH], model.config, len(model.categories), batch)
  names = (*networks.FINE, *networks.granular_of(model.config))
  varied: dict[str, Sources] = {}
  for method, (_, name, value) in settings().items():
    changes = {name: type(getattr(model.config.network, name))(value)}
    network = model.config.network.model_copy(update=changes)
    config = model.config.model_copy(update={"network": network})
    varied[method] = make_sources(dataclasses.replace(model, config=config), batch)

  def on(device: Device) -> tuple[dict[str, Sources], Sources, DenseNetwork]:
    own = usual.on(device)
    changed = {method: _only_companions(own, sources.on(device)) for method, sources in varied.items()}
    return changed, own, switch.on(device)

  networks_of_thread = OfThread(on, local_devices())

  def maps(video: StavisVideo, frames: Sequence[int]) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    reach, given = reach_of(video, model.rate), tags.get(f"{video.database}/{video.name}", tags.get(video.name))
    own_varied, own_usual, own_switch = networks_of_thread.get()

    def clips() -> Iterator[Clip]:
      return switched_windows(video_samples(video, model.side), reach, own_switch)

    found = given or (top_tag(own_usual.network, clips()),)

    def parts() -> Iterator[tuple[range, dict[str, np.ndarray]]]:
      for clip in clips():
        first = clip.first + clip.targets.start
        made: dict[str, np.ndarray] = {}
        for method, sources in own_varied.items():
          made[method] = to_uint8(ClipSources(sources, clip, found).selected(names)[0])
        as_trained = ClipSources(own_usual, clip, found)
        for method, number in COMPANIONS.items():
          made[method] = to_uint8(as_trained.selected(names, Toggles(companions=number))[0])
        yield range(first, first + len(clip.targets)), made

    yield from select_frames(parts(), frames)

  return maps


def _only_companions(usual: Sources, changed: Sources) -> Sources:
  """Returns changed sources, but usual ones where there are no companions: without a C-GCN nothing changes."""

  def network(name: str, refine: bool | None) -> DenseNetwork:
    has_companions = networks.NETWORKS[name].companions is not None
    return (changed if has_companions else usual).network(name, refine)

  return dataclasses.replace(changed, network=network)
