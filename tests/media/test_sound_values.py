"""Values of sounds that are no numbers."""

import av
import numpy as np
import pytest

from stajax.media.audio import audio_blocks

RATE = 16000


def write_sound(path, values, layout):
  """Writes float samples (channels, n) as they are, in frames of 1,000."""
  with av.open(str(path), "w") as container:
    stream = container.add_stream("pcm_f32le", rate=RATE, layout=layout)
    for at in range(0, values.shape[1], 1000):
      part = np.ascontiguousarray(values[:, at : at + 1000].T.reshape(1, -1))
      frame = av.AudioFrame.from_ndarray(part, "flt", layout)
      frame.sample_rate, frame.pts = RATE, at
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_no_finite_number_is_silent(tmp_path, layout, wrong):
  channels = 1 if layout == "mono" else 2
  values = np.full((channels, 8000), 0.25, np.float32)
  values[:, 3000:5000] = wrong
  write_sound(tmp_path / "sound.mkv", values, layout)
  notes = []
  heard = np.concatenate(list(audio_blocks(tmp_path / "sound.mkv", notes)))
  np.testing.assert_allclose(heard, np.where(np.isfinite(values[0]), values[0], 0), atol=1e-3)
  assert notes == [f"sound: values that are no finite numbers ({2000 * channels} of them) are taken for silence"]


def test_finite_values_are_as_they_were_and_without_a_note(tmp_path):
  values = np.random.default_rng(0).uniform(-0.9, 0.9, (1, 4000)).astype(np.float32)
  write_sound(tmp_path / "sound.mkv", values, "mono")
  notes = []
  np.testing.assert_allclose(np.concatenate(list(audio_blocks(tmp_path / "sound.mkv", notes))), values[0], atol=1e-4)
  assert not notes
