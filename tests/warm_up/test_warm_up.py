"""After a warm-up nothing is left to compile, whatever the length of a video."""

import jax
import numpy as np
import pytest

from helpers.tiny import model_folder, predictor, random_networks, small_programs  # noqa: F401
from stajax import runtime
from stajax.inference.clip import WINDOW
from stajax.inference.reservoir import Fragments
from stajax.media.spectrogram import NUM_BINS, WINDOW_COLUMNS
from stajax.warm_up import __main__ as command
from stajax.warm_up import programs


@pytest.fixture
def compilations():
  """The names of events of compilation, as JAX reports them."""
  found, is_on = [], [True]

  def listen(event, _duration, **_kwargs):
    if is_on and event.endswith("backend_compile_duration"):
      found.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield found
  is_on.clear()


@pytest.mark.slow
def test_nothing_is_compiled_after_a_warm_up(predictor, compilations):  # noqa: F811
  computed = list(programs.compute(predictor))
  assert len(compilations) > 5 and len(set(computed)) == 2 * len(programs.lengths(predictor.batch))
  compilations.clear()
  random = np.random.default_rng(0)
  frames = random.integers(0, 255, (5, predictor.side, predictor.side, 3), dtype=np.uint8)
  sounds = random.normal(size=(5, NUM_BINS, WINDOW_COLUMNS)).astype(np.float32)
  for length in (1, 2, predictor.batch, predictor.batch + 1, 37, WINDOW, WINDOW + 1, 3 * WINDOW + 5):
    for has_sound in (True, False):
      samples = [(frames[at % 5], sounds[at % 5] if has_sound else None) for at in range(length)]
      at = np.unique(np.linspace(0, length - 1, 32).astype(np.int64))
      maps = predictor.maps(samples, 2, lambda samples=samples, at=at: Fragments([[samples[i]] * 3 for i in at], at))
      assert sum(1 for _ in maps) == length
  assert compilations == []


def test_the_command_says_where_programs_are(model_folder, monkeypatch, capsys):  # noqa: F811
  monkeypatch.setattr(programs, "lengths", lambda batch: [1])
  runtime.configure()
  assert command.main(["--model", str(model_folder)]) == 0
  first, second, last = capsys.readouterr().out.splitlines()
  assert first == "1 of 2: 1 map with sound" and second == "2 of 2: 1 map without sound" and "compiled" in last
