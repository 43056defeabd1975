"""What is taken from a model: how it is written, named, and who gets whose sound."""

import pytest

from stajax.report.names import description_of, title_of
from stajax.senses import OWN, Senses, choose_donors, parse, split_method


@pytest.mark.parametrize(
  "text, senses, suffix",
  [
    ("sound=other", Senses("other"), "_other_sound"),
    ("sound=none", Senses("none"), "_no_sound"),
    ("motion=none", Senses(motion="none"), "_no_motion"),
    ("companions=none", Senses(companions="none"), "_no_companions"),
    (" motion = none , sound=none,companions=own", Senses("none", "none"), "_no_sound_no_motion"),
    (
      "sound=other,motion=none,companions=none",
      Senses("other", "none", "none"),
      "_other_sound_no_motion_no_companions",
    ),
  ],
)
def test_senses_and_the_names_of_methods(text, senses, suffix):
  assert parse(text) == senses and senses.suffix == suffix
  for method in ("final", "sta_plus_long"):
    assert split_method(method + suffix) == (method, senses)


@pytest.mark.parametrize(
  "text, expected",
  [
    ("", "found '', expected SENSE=VALUE such as sound=other"),
    ("sound", "found 'sound', expected SENSE=VALUE"),
    ("sond=other", "unknown sense 'sond'; did you mean `sound`? Known: sound, motion, companions"),
    ("sound=othr", "unknown value of sound 'othr'; did you mean `other`? Known: own, other, none"),
    ("motion=other", "unknown value of motion 'other'; Known: own, none"),
    ("sound=none,sound=other", "found sound twice"),
    ("sound=own,motion=own", "this changes nothing, expected a value other than own"),
    ("sound=none,", "found '', expected"),
  ],
)
def test_what_cannot_be_read(text, expected):
  with pytest.raises(ValueError) as error:
    parse(text)
  message = str(error.value)
  assert message.startswith(f"--sense {text}: ") and expected in message and "\n" not in message


def test_other_names_are_left_alone():
  for method in ("final", "final_no_switch", "sta_no_centre", "cam_s", "row_09", "_no_sound", "no_sound"):
    assert split_method(method) == (method, OWN)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_everybody_gives_and_gets_another_sound(count):
  videos, seen = [f"v{i}" for i in range(count)], set()
  for seed in range(20):
    donors = choose_donors(videos, seed)
    assert donors == choose_donors(videos, seed)
    assert set(donors) == set(donors.values()) == set(videos)
    assert all(donor != video for video, donor in donors.items())
    seen.add(tuple(sorted(donors.items())))
  assert len(seen) > (count > 2)


def test_one_sound_cannot_be_exchanged():
  assert choose_donors([], 0) == {}
  with pytest.raises(ValueError, match="found sound in one video"):
    choose_donors(["v"], 0)


def test_titles():
  assert title_of("final_other_sound") == "Final, other sound"
  assert title_of("sta_plus_short_no_sound_no_motion") == "STA+ short, no sound, no motion"
  assert title_of("final_no_sound_0.3") == "Final, no sound, threshold 0.3"
  assert description_of("sta_no_sound_no_motion").endswith("STA, but the model is given no sound and no motion.")
