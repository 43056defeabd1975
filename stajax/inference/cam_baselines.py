"""CAM baselines of the paper's Table 2, computed from our classifier S on whole frames of videos.

`stajax.maps.cam_baselines` has their equations. No TensorFlow is needed here.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# JAX annotates its functions in part.

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stajax import networks
from stajax.eyetracking import StavisVideo
from stajax.inference.ablation import make_sources, select_frames, switched_windows
from stajax.inference.class_maps import Sources, make_dense, top_tag
from stajax.inference.clip import Clip
from stajax.inference.dense import DenseNetwork
from stajax.inference.local_devices import Device, OfThread, local_devices
from stajax.inference.predictor import to_uint8
from stajax.inference.tree_video import reach_of, video_samples
from stajax.maps import cam_baselines
from stajax.maps.pseudo import resize
from stajax.model import Model
from stajax.nets.base import Network
from stajax.nets.images import to_size
from stajax.scoring.videos import MethodMaps

_S = networks.COARSE[0]
NOISE, COPIES = 0.07, 4
"""The deviation of Smooth Grad-CAM++'s noise, for frames in [0, 1], and the number of its copies of each frame."""

Derive = Callable[[Any, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]


def method_maps(model: Model, batch: int, tags: Mapping[str, tuple[int, ...]]) -> MethodMaps:
  """Returns a function that computes the maps of all baselines for native frames of a video.

  Several threads may ask at the same time; each gets a device.

  Args:
    model: The model, with at least `stajax.networks.tag_networks` loaded.
    batch: The number of frames that are computed together.
    tags: The true tags by `DATABASE/VIDEO` or `VIDEO`. Others get the category that the coarse classifiers predict, as
      the rows of Table 1 do. Of several tags the first one counts.
  """
  sources = make_sources(model, batch)
  switch = make_dense(networks.SWITCH, model.variables[networks.SWITCH], model.config, len(model.categories), batch)
  size = model.config.s_coarse.size
  derive = _make_derive(networks.make_network(_S, model.config, len(model.categories)), size)
  side = model.config.maps.size

  def on(device: Device) -> tuple[Sources, DenseNetwork, Any]:
    return sources.on(device), switch.on(device), jax.device_put(model.variables[_S], device)

  networks_of_thread = OfThread(on, local_devices())

  def maps(video: StavisVideo, frames: Sequence[int]) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    reach, given = reach_of(video, model.rate), tags.get(f"{video.database}/{video.name}", tags.get(video.name))
    own_sources, own_switch, variables = networks_of_thread.get()

    def clips() -> Iterator[Clip]:
      return switched_windows(video_samples(video, model.side), reach, own_switch)

    tag = given[0] if given else top_tag(own_sources.network, clips())

    def parts() -> Iterator[tuple[range, dict[str, np.ndarray]]]:
      for clip in clips():
        for start in range(0, len(clip.targets), batch):
          chosen = list(clip.targets)[start : start + batch]
          images = np.stack([clip.samples[i][0] for i in chosen])
          first = clip.first + chosen[0]
          yield range(first, first + len(chosen)), _baselines(derive, variables, images, tag, batch, size, side)

    yield from select_frames(parts(), frames)

  return maps


def _make_derive(network: Network, size: int) -> Derive:
  """Returns a function of variables, frames (m, S, S, 3) uint8, noise (s, m, H, W, 3) and a category.

  It returns the features (m, h, w, c), the gradients of the category's logit, and those of the noisy frames (s, …).
  """

  def gradient(variables: Any, images: jax.Array, tag: jax.Array) -> tuple[jax.Array, jax.Array]:
    features = network.apply(variables, images, method="backbone")["f5"]

    def logit(f5: jax.Array) -> jax.Array:
      return network.apply(variables, stages={"f5": f5[:, None, None]}).logits[:, tag].sum()

    slope: Any = jax.grad(logit)(features)
    return features.astype(jnp.float32), slope.astype(jnp.float32)

  @jax.jit
  def derive(
    variables: Any, frames: jax.Array, noise: jax.Array, tag: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    images = to_size(frames, size)
    features, own = gradient(variables, images, tag)

    def of_noisy(each: jax.Array) -> jax.Array:
      return gradient(variables, images + each, tag)[1]

    noisy: Any = jax.lax.map(of_noisy, noise)
    return features, own, noisy

  return derive


def _baselines(
  derive: Derive, variables: Any, images: np.ndarray, tag: int, batch: int, size: int, side: int
) -> dict[str, np.ndarray]:
  """Returns the maps (n, side, side) uint8 of n ≤ B frames (n, S, S, 3), by method; S sees them at `size`."""
  count = len(images)
  filled = np.concatenate([images, np.repeat(images[-1:], batch - count, axis=0)])
  # The same noise for every frame: maps do not depend on which frames are computed together.
  noise = NOISE * np.random.default_rng(0).normal(size=(COPIES, 1, size, size, 3)).astype(np.float32)
  found = derive(variables, jnp.asarray(filled), jnp.asarray(noise), jnp.asarray(tag))
  features, own, noisy = (np.asarray(x) for x in found)
  features, own, noisy = features[:count], own[:count], noisy[:, :count]
  maps = {
    "eigen_cam": cam_baselines.eigen_cam(features),
    "eigen_grad_cam": cam_baselines.eigen_grad_cam(features, own),
    "layer_cam": cam_baselines.layer_cam(features, own),
    "smooth_grad_cam_pp": cam_baselines.smooth_grad_cam_pp(features, noisy),
  }
  return {name: to_uint8(resize(x, (side, side))) for name, x in maps.items()}
