"""What is taken from a video to see what it adds: the video's own sound, its motion, and a frame's companions.

`Senses` says what a model is shown. `stajax.inference.senses` applies it to clips, and `stajax.report.senses` compares.
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np

from stajax import hints

Sound = Literal["own", "other", "none"]
Seen = Literal["own", "none"]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Senses:
  """What a model is shown of every video; by default all that the video has.

  Attributes:
    sound: The video's own sound, that of another video at the same time, or none.
    motion: The frames of a fragment as they are; or, for `none`, its middle frame in place of all of them.
    companions: The companions that a network with companions usually has; or, for `none`, the target in place of them.
  """

  sound: Sound = "own"
  motion: Seen = "own"
  companions: Seen = "own"

  @property
  def changes(self) -> tuple[str, ...]:
    """What is changed, in words such as "other sound" and "no motion"."""
    values = dataclasses.asdict(self)
    return tuple(f"{_WORDS[value]} {sense}" for sense, value in values.items() if value != "own")

  @property
  def suffix(self) -> str:
    """The suffix of a method's name for maps that are computed so, such as `_other_sound` or `_no_sound_no_motion`."""
    return "".join(f"_{change.replace(' ', '_')}" for change in self.changes)


_WORDS = {"other": "other", "none": "no"}
_OPTIONS: dict[str, tuple[str, ...]] = {
  "sound": get_args(Sound),
  "motion": get_args(Seen),
  "companions": get_args(Seen),
}
_METHOD = re.compile(r"(.+?)(?:_(other|no)_sound)?(?:_(no)_motion)?(?:_(no)_companions)?")

OWN = Senses()
"""Everything that a video has."""


def parse(text: str) -> Senses:
  """Reads `sound=other`, or a combination such as `sound=none,motion=none`.

  Raises:
    ValueError: The text is in another form, or changes nothing; one line that says what was expected.
  """
  values: dict[str, str] = {}
  for part in text.split(","):
    sense, separator, value = (x.strip() for x in part.partition("="))
    if not separator:
      raise ValueError(f"--sense {text}: found {part.strip()!r}, expected SENSE=VALUE such as sound=other")
    if sense not in _OPTIONS:
      raise ValueError(f"--sense {text}: {hints.unknown('sense', sense, _OPTIONS)}")
    if value not in _OPTIONS[sense]:
      raise ValueError(f"--sense {text}: {hints.unknown(f'value of {sense}', value, _OPTIONS[sense])}")
    if sense in values:
      raise ValueError(f"--sense {text}: found {sense} twice, expected it once")
    values[sense] = value
  # The values have just been compared with the options.
  senses = Senses(**values)  # pyright: ignore[reportArgumentType]
  if senses == OWN:
    raise ValueError(f"--sense {text}: this changes nothing, expected a value other than own")
  return senses


def split_method(method: str) -> tuple[str, Senses]:
  """Splits a method's name such as `final_no_sound` into the method's own name and what it was shown."""
  match = _METHOD.fullmatch(method)
  assert match is not None, "a method has a name"
  name, sound, motion, companions = match.groups()
  heard: dict[str | None, Sound] = {None: "own", "other": "other", "no": "none"}
  return name, Senses(heard[sound], "none" if motion else "own", "none" if companions else "own")


def choose_donors(sounding: Sequence[Item], seed: int) -> dict[Item, Item]:
  """Chooses another item, whose sound it is given, for every item that has sound.

  Each gives its sound once: the items are shuffled, and the sound of each goes to the one before it in the circle.

  Args:
    sounding: The items that have sound; empty if there is no sound to exchange.
    seed: The seed of the shuffle.

  Raises:
    ValueError: Only one item has sound.
  """
  if len(sounding) == 1:
    raise ValueError("sound=other: found sound in one video, expected it in at least two, which exchange it")
  order = np.random.default_rng(seed).permutation(len(sounding)).tolist()
  return {sounding[at]: sounding[donor] for at, donor in zip(order, [*order[1:], *order[:1]], strict=True)}
