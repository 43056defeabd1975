"""The stage graph: which stage needs what, and what kind of work it is. The work itself is in the modules beside this.

data ─┬─ s_coarse, st_coarse ──────────────────┐
      └─ tagger_0…2 ─ tag_heard ─┬─ sa_coarse ─┴─ scam_coarse
                                 └─ switch ──────────────────────────────────────┐
scam_coarse ─┬─ s, st, sa ───────────────────────┐                               │
             └─ s_plus_*, st_plus_*, sa_plus_* ──┴─ scam_plus ─ sta, sta_plus_* ─┴─ model ─ report
"""

from dataclasses import dataclass
from typing import Literal

from stajax.config import Config
from stajax.networks import (
  ALL_STUDENTS,
  COARSE,
  FINE,
  NETWORKS,
  STUDENTS,
  SWITCH,
  TAGGERS,
  granular_of,
  students_of,
)

Work = Literal[
  "prepare data",
  "train",
  "label sounds",
  "find boxes",
  "make pseudo-fixations",
  "ask teacher",
  "extract student",
  "save model",
  "write report",
]


@dataclass(frozen=True)
class Stage:
  """One node of the graph.

  Attributes:
    name: The name of the stage and of its folder; of a stage that trains a network also the network's name.
    work: What the stage does.
    needs: The names of the stages that have to be finished first.
  """

  name: str
  work: Work
  needs: tuple[str, ...]


def make_graph(config: Config) -> tuple[Stage, ...]:
  """Returns the stages of a configuration in an order in which they can run.

  With an off-the-shelf tagger no taggers are trained, or one that it teaches. Students that share their backbone are
  trained as one network, from which each then gets its own weights. STANet has no networks with companions, and STA as
  its only student; its stage `scam_plus` makes pseudo-fixations from SCAM. Where a finished model teaches, its maps
  take the place of all that.
  """
  if config.is_distilled:
    return _learn_from_teacher(config)
  granular, students = granular_of(config), students_of(config)
  silent = tuple(name for name in COARSE if not NETWORKS[name].is_switched)
  hearing = tuple(name for name in COARSE if NETWORKS[name].is_switched)
  taggers = TAGGERS if config.hearing.kind == "trained" else ()
  taught = TAGGERS[:1] if config.hearing.teaches else ()
  return (
    Stage("data", "prepare data", needs=()),
    *_train(silent, needs=("data",)),
    *_train(taggers, needs=("data",)),
    Stage("tag_heard", "label sounds", needs=taggers or ("data",)),
    *_train(taught, needs=("tag_heard",)),
    *_train((SWITCH,), needs=("tag_heard",)),
    *_train(hearing, needs=("tag_heard",)),
    Stage("scam_coarse", "find boxes", needs=COARSE),
    *_train(FINE, needs=("scam_coarse",)),
    *_train(granular, needs=("scam_coarse",)),
    Stage("scam_plus", "make pseudo-fixations", needs=(*FINE, *granular)),
    *(_train_together() if config.shares_students else _train(students, needs=("scam_plus",))),
    Stage("model", "save model", needs=(SWITCH, *students)),
    Stage("report", "write report", needs=("model",)),
  )


def _learn_from_teacher(config: Config) -> tuple[Stage, ...]:
  taught = TAGGERS[:1] if config.hearing.teaches else ()
  students = students_of(config)
  # What is heard can only be found in a picture whose channels stand for the tags, too: a classifier teaches that.
  seen = COARSE[:1] if COARSE[0] in config.sta.start else ()
  return (
    Stage("data", "prepare data", needs=()),
    *_train(seen, needs=("data",)),
    *((Stage("tag_heard", "label sounds", needs=("data",)),) if taught else ()),
    *_train(taught, needs=("tag_heard",)),
    Stage("teacher_maps", "ask teacher", needs=("data",)),
    *_train(students, needs=("teacher_maps", *seen, *taught)),
    Stage("model", "save model", needs=students),
    Stage("report", "write report", needs=("model",)),
  )


def _train(names: tuple[str, ...], needs: tuple[str, ...]) -> tuple[Stage, ...]:
  return tuple(Stage(name, "train", needs) for name in names)


def _train_together() -> tuple[Stage, ...]:
  extracted = (Stage(name, "extract student", needs=(ALL_STUDENTS,)) for name in STUDENTS)
  return (Stage(ALL_STUDENTS, "train", needs=("scam_plus",)), *extracted)
