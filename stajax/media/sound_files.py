"""Reads the sound files of any kind and rate that lie beside frames or videos.

PyAV reads WAV files, as it reads the sound of videos, so that the base install can read them. librosa reads all other
kinds and soxr resamples them; both come with the extra `train`, and take seconds to load. `stajax.media.isolated` has
the same function for files that may come from anybody.
"""

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stajax.media.audio import audio_blocks
from stajax.media.file import DEFAULT, Decoding, MediaError, check_is_file
from stajax.media.spectrogram import SAMPLE_RATE

_LIBRARIES = ("librosa", "soundfile", "soxr")
_BLOCK = 2**16  # the number of samples that are read at a time
_MAX_SAMPLES = 2**28  # the most samples of all channels of an MP3 file: 50 minutes in stereo, 1 GiB


class LibraryMissing(ImportError):
  """A library that reads a file is missing; the message is one line with the file and what to install."""


def check_libraries(path: Path) -> None:
  """Raises LibraryMissing if a library is not installed that reads this kind of file."""
  if not _is_wav(path):
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
      advice = "pip install 'stajax[train]', or convert the file to WAV"
      raise LibraryMissing(f"{path}: needs librosa, which is not installed ({missing[0]}): {advice}")


def load_libraries(path: Path) -> None:
  """Loads what reads this kind of file, so that processes that are forked afterwards have it."""
  if not _is_wav(path):
    with contextlib.suppress(ImportError):
      importlib.import_module("librosa.core.audio")


def _is_wav(path: Path) -> bool:
  return path.suffix.lower() == ".wav"


def sound_file_blocks(
  path: str | Path, notes: list[str] | None = None, decoding: Decoding = DEFAULT
) -> Iterator[np.ndarray]:
  """Yields the sound of a file that has no picture as mono at 16 kHz, from its first sample on.

  Args:
    path: The file; its suffix names its kind.
    notes: Receives a line for each thing that had to be left out.
    decoding: The limits of the decoder.

  Yields:
    Blocks (n,) float32 in [-1, 1), n > 0, rounded to 16 bits as in VGGSound's preparation.

  Raises:
    MediaError: The file cannot be read.
    LibraryMissing: librosa is not installed, and the file is not a WAV file.
  """
  path = Path(path)
  if _is_wav(path):
    yield from audio_blocks(path, notes, decoding)
    return
  check_libraries(path)
  for block in _resampled_blocks(path):
    if len(block):
      yield (np.clip(np.round(block * 32768), -32768, 32767) / 32768).astype(np.float32)


def _resampled_blocks(path: Path) -> Iterator[np.ndarray]:
  import librosa
  import soundfile
  import soxr

  check_is_file(path)
  try:
    with soundfile.SoundFile(path) as file:
      resampler = soxr.ResampleStream(file.samplerate, SAMPLE_RATE, num_channels=1, quality="HQ")
      length = _BLOCK
      if file.format == "MP3":  # soundfile seeks after every read, which spoils the decoding of MP3, and only of MP3
        length = max(1, file.frames)
        if length * file.channels > _MAX_SAMPLES:
          raise MediaError(f"{path}: has {length} samples in {file.channels} channels, at most {_MAX_SAMPLES} are read")
      for block in librosa.stream(file, block_length=length, frame_length=1, hop_length=1):
        yield resampler.resample_chunk(block)
      yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
  except soundfile.SoundFileError as error:
    raise MediaError(f"{path}: is not a sound file that can be read ({' '.join(str(error).split())})") from error
