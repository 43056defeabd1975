"""The ten tags of the synthetic clips, and the tag, rivals and difficulty of each clip.

A tag is a look, a motion and a timbre. Look-alikes differ in one source only:

  tag        look       motion                              timbre    differs from its twin in
  shaker     cross      to and fro, horizontally            bell      motion (hopper)
  hopper     cross      up and down                         bell      motion (shaker)
  orbiter    ring       on a small circle, part and all     buzz      motion (rocker)
  rocker     ring       body swings under its fixed part    buzz      motion (orbiter)
  whistler   quadrants  turns, so its part circles it       whistle   sound (rattler)
  rattler    quadrants  turns, so its part circles it       rattle    sound (whistler)
  chirper    bars       jumps to a new place every 2 frames chirp     sound (growler)
  growler    bars       jumps to a new place every 2 frames growl     sound (chirper)
  knocker    trefoil    to and fro, along a diagonal        knock     no twin
  organist   halves     swells and shrinks                  organ     no twin

The look is the pattern of the small distinctive part alone; body, colours, size, place and background reveal nothing.

Most clips also show *rivals*: silent objects of other categories. No set of visible categories favours one of its
members as the tag, so that only the sound says which object the tag is about.
"""

import itertools
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Category:
  """The look, motion and timbre of a tag.

  Attributes:
    tag: The tag.
    look: The pattern of the distinctive part.
    motion: The kind of motion.
    timbre: The kind of sound.
  """

  tag: str
  look: str
  motion: str
  timbre: str


TABLE: tuple[Category, ...] = (
  Category("shaker", "cross", "shake", "bell"),
  Category("hopper", "cross", "hop", "bell"),
  Category("orbiter", "ring", "orbit", "buzz"),
  Category("rocker", "ring", "rock", "buzz"),
  Category("whistler", "quadrants", "turn", "whistle"),
  Category("rattler", "quadrants", "turn", "rattle"),
  Category("chirper", "bars", "dart", "chirp"),
  Category("growler", "bars", "dart", "growl"),
  Category("knocker", "trefoil", "slant", "knock"),
  Category("organist", "halves", "pulse", "organ"),
)

CATEGORIES: tuple[str, ...] = tuple(category.tag for category in TABLE)

FOREIGN_PERCENT = 36
REPEAT_PERCENT = 24
REPEAT_KINDS = ("returns", "copies", "leaves")
RIVAL_COUNTS = (0, 1, 2, 1, 1)  # the numbers of rivals in any five successive clips of a tag, in some order

_NUM_PAIRS = len(TABLE) // 2


@dataclass(frozen=True)
class Plan:
  """The tag, the rivals and the difficulty of a clip, which depend on its index alone.

  Attributes:
    category: The category of the tagged object.
    rivals: The categories of its silent rivals, from none to two.
    foreign: None, "over" (another category's timbre over the object's own sound) or "instead" (no object sounds).
    repeat: None, "returns" (the object leaves and comes back), "copies" (more of it appear) or "leaves" (for good).
  """

  category: Category
  rivals: tuple[Category, ...]
  foreign: Literal["over", "instead"] | None
  repeat: Literal["returns", "copies", "leaves"] | None


def plan_clip(index: int) -> Plan:
  """Returns the tag, the rivals and the difficulty of clip `index`.

  They follow a pattern of period 100 in which the tags alternate: any 100 consecutive indices have each tag 10 times,
  exactly 36 foreign clips (half "over", half "instead"; 3 or 4 of each tag) and exactly 24 with repetition (2 or 3 of
  each tag; 7, 9 and 8 of the three kinds); 9 clips are both. The multipliers were chosen so that shorter runs are
  close to this too: the first 60 have 21 and 14, of which 6 are both. Of any 50 consecutive indices 10 have no rival,
  30 have one and 10 have two, whatever their difficulty (see `_plan_rivals` for which).
  """
  digit, row = index % 10, index // 10 % 10
  foreign_row, repeat_row = (7 * row + 7 * digit) % 10, (row + 2 * digit + 4) % 10
  foreign = repeat = None
  if 10 * foreign_row + 7 * digit % 10 < FOREIGN_PERCENT:
    foreign = ("over", "instead")[(foreign_row + digit) % 2]
  if 10 * repeat_row + (3 * digit + 5) % 10 < REPEAT_PERCENT:
    repeat = REPEAT_KINDS[(repeat_row + digit) % 3]
  return Plan(TABLE[digit], _plan_rivals(digit, index // 10), foreign, repeat)


def _plan_rivals(tag: int, number: int) -> tuple[Category, ...]:
  """Returns the rivals of a tag's clip with this number.

  The table is taken as five pairs: four pairs of twins and (knocker, organist). An object and its rivals are of
  different pairs. In 40 clips of each tag, from number 0 or a multiple of 40 on, every pair of visible categories has
  either of them equally often as the tag. In 30 clips of each tag the same holds for every visible three, and in 120
  every possible three is there.
  """
  count, block = RIVAL_COUNTS[(number + 3 * tag) % 5], number // 5
  pair, member = divmod(tag, 2)
  others = [other for other in range(_NUM_PAIRS) if other != pair]
  chosen: list[tuple[int, int]] = []
  if count == 1:
    choice = (3 * block + number % 5 + tag) % (2 * len(others))
    chosen = [(others[choice // 2], choice % 2)]
  elif count == 2:
    pairs = sorted([pair, *list(itertools.combinations(others, 2))[block % 6]])
    # Which members go together does not depend on which of the three is the tag.
    members = dict(zip(pairs, (0, block // 6 % 2, block // 12 % 2)))
    chosen = [(other, member ^ members[pair] ^ members[other]) for other in pairs if other != pair]
  return tuple(TABLE[2 * other + chosen_member] for other, chosen_member in chosen)
