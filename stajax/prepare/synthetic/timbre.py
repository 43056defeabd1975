"""The sound of a synthetic clip: one of eight timbres, mixed with foreign sound and background noise.

Every timbre differs from the others in any second in which it sounds. Pitch, tempo and phase vary from clip to
clip; the held-out clips use pitches and tempos on both sides of those heard in training.
Legend: s samples at 16 kHz.
"""

from collections.abc import Callable

import numpy as np
from scipy.signal import butter, sosfilt

from stajax.prepare.synthetic.scene import Scene, make_generator

SAMPLE_RATE = 16000
TRAIN_FACTORS = (0.85, 1.15)  # the range of factors of pitch and tempo
HELDOUT_FACTORS = ((0.78, 0.85), (1.15, 1.25))
OWN_UNDER_FOREIGN_DB = -10.0
OUT_OF_FRAME_DB = -12.0
SIGNAL_TO_NOISE_DB = (8.0, 25.0)
PEAK = (0.3, 0.95)


def _within_beat(rng: np.random.Generator, times: np.ndarray, tempo: float) -> np.ndarray:
  """Returns the seconds (s,) since the last beat."""
  return np.mod(times * tempo + rng.random(), 1.0) / tempo


def _phase(frequency: np.ndarray) -> np.ndarray:
  """Returns the cycles (s,) of a tone whose frequency in Hz changes with time."""
  return np.cumsum(frequency) / SAMPLE_RATE


def _sine(cycles: np.ndarray) -> np.ndarray:
  return np.sin(2 * np.pi * cycles)


def _sawtooth(cycles: np.ndarray) -> np.ndarray:
  return 2 * np.mod(cycles, 1.0) - 1


def _bell(rng: np.random.Generator, times: np.ndarray, pitch: float, tempo: float) -> np.ndarray:
  since = _within_beat(rng, times, 3.5 * tempo)
  fade = np.exp(-since / 0.12)
  return fade * _sine(700 * pitch * since + 0.6 * fade * _sine(980 * pitch * since))


def _buzz(rng: np.random.Generator, times: np.ndarray, pitch: float, tempo: float) -> np.ndarray:
  return _sawtooth(_phase(140 * pitch * (1 + 0.03 * _sine(6 * tempo * times + rng.random()))))


def _whistle(rng: np.random.Generator, times: np.ndarray, pitch: float, tempo: float) -> np.ndarray:
  glide = 0.03 * _sine(5 * tempo * times + rng.random()) + 0.15 * _sine(0.7 * tempo * times + rng.random())
  return _sine(_phase(3000 * pitch * (1 + glide)))


def _rattle(rng: np.random.Generator, times: np.ndarray, pitch: float, tempo: float) -> np.ndarray:
  band = butter(2, (2200 * pitch, 5000 * pitch), "bandpass", fs=SAMPLE_RATE, output="sos")
  return np.asarray(sosfilt(band, rng.standard_normal(times.size))) * np.exp(
    -_within_beat(rng, times, 11 * tempo) / 0.02
  )


def _chirp(rng: np.random.Generator, times: np.ndarray, pitch: float, tempo: float) -> np.ndarray:
  length = 0.14
  since = np.minimum(_within_beat(rng, times, 4.5 * tempo), length)
  cycles = 900 * pitch * since + 0.5 * 2300 * pitch * since**2 / length
  return _sine(cycles) * np.sin(np.pi * since / length) ** 2


def _growl(rng: np.random.Generator, times: np.ndarray, pitch: float, tempo: float) -> np.ndarray:
  low = butter(2, 800, "lowpass", fs=SAMPLE_RATE, output="sos")
  tone = np.asarray(sosfilt(low, _sawtooth(70 * pitch * times + rng.random())))
  return tone * (1 + 0.9 * _sine(17 * tempo * times + rng.random()))


def _knock(rng: np.random.Generator, times: np.ndarray, pitch: float, tempo: float) -> np.ndarray:
  since = _within_beat(rng, times, 5 * tempo)
  click = rng.standard_normal(times.size) * np.exp(-since / 0.003)
  return _sine(380 * pitch * since) * np.exp(-since / 0.03) + 0.6 * click


def _organ(rng: np.random.Generator, times: np.ndarray, pitch: float, tempo: float) -> np.ndarray:
  chord = sum(
    _sine(300 * pitch * interval * harmonic * times + rng.random()) / harmonic
    for interval in (1.0, 1.25, 1.5)
    for harmonic in (1, 2, 4)
  )
  return chord * (1 + 0.4 * _sine(4 * tempo * times + rng.random()))


TIMBRES: dict[str, Callable[[np.random.Generator, np.ndarray, float, float], np.ndarray]] = {
  "bell": _bell,
  "buzz": _buzz,
  "whistle": _whistle,
  "rattle": _rattle,
  "chirp": _chirp,
  "growl": _growl,
  "knock": _knock,
  "organ": _organ,
}


def _factor(rng: np.random.Generator, part: str) -> float:
  if part == "train":
    return rng.uniform(*TRAIN_FACTORS)
  return rng.uniform(*HELDOUT_FACTORS[rng.integers(2)])


def synthesise(timbre: str, rng: np.random.Generator, part: str, num_samples: int) -> np.ndarray:
  """Returns one variation of a timbre, (s,) float64 with a root mean square of 1."""
  times = np.arange(num_samples) / SAMPLE_RATE
  sound = TIMBRES[timbre](rng, times, _factor(rng, part), _factor(rng, part))
  return sound / np.sqrt(np.mean(sound**2))


def _noise(rng: np.random.Generator, num_samples: int) -> np.ndarray:
  """Returns noise with a spectrum between white and pink, (s,) float64 with a root mean square of 1."""
  spectrum = np.fft.rfft(rng.standard_normal(num_samples))
  spectrum /= (np.arange(spectrum.size) + 20.0) ** rng.uniform(0.1, 0.5)
  noise = np.fft.irfft(spectrum, num_samples)
  return noise / np.sqrt(np.mean(noise**2))


def _gain(decibels: float) -> float:
  return 10.0 ** (decibels / 20)


def make_track(scene: Scene) -> np.ndarray:
  """Returns the clip's sound, (round(seconds * 16000),) float32 mono at 16 kHz in [-1, 1].

  The object is as loud as it is active, and quieter while it is out of the frame. Foreign sound is as loud as the
  object would otherwise be; then the object is 10 dB quieter or silent.
  """
  rng = make_generator(scene.seed, scene.index, scene.part, "sound")
  num_samples = round(scene.settings.seconds * SAMPLE_RATE)
  times = np.arange(num_samples) / SAMPLE_RATE
  track = np.zeros(num_samples)
  if scene.sounds:
    loudness = scene.activity * np.where(scene.present, 1.0, _gain(OUT_OF_FRAME_DB))
    loudness *= _gain(OWN_UNDER_FOREIGN_DB if scene.foreign is not None else 0.0)
    envelope = np.interp(times, np.arange(loudness.size) / scene.settings.rate, loudness)
    track += envelope * synthesise(scene.plan.category.timbre, rng, scene.part, num_samples)
  if scene.foreign is not None:
    track += synthesise(scene.foreign, rng, scene.part, num_samples)
  level = np.sqrt(np.mean(track**2)) * _gain(-rng.uniform(*SIGNAL_TO_NOISE_DB))
  track += level * _noise(rng, num_samples)
  return (track * (rng.uniform(*PEAK) / np.abs(track).max())).astype(np.float32)
