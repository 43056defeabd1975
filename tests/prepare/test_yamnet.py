"""YAMNet's scores of real sound, and of the clips that records were made from."""

from pathlib import Path

import numpy as np
import pytest

from helpers.fake_records import contents
from helpers.media_files import ramp, read_sound, write_video

pytest.importorskip("tensorflow")

from stajax.data.class_scores import ClassScores
from stajax.data.records import Records
from stajax.media.limits import Limits
from stajax.prepare.__main__ import main
from stajax.prepare.clip import MediaSettings
from stajax.prepare.listing import Item
from stajax.prepare.yamnet import ScoredClip, Yamnet, YamnetError, stage_scores


@pytest.fixture(scope="module")
def tagger(shared) -> Path:
  pytest.importorskip("ai_edge_litert")
  path = shared / "weights" / "yamnet.tflite"
  if not path.is_file():
    pytest.skip("needs YAMNet's TFLite file")
  return path


def test_another_file_is_refused(tmp_path, tagger):
  path = tmp_path / "a.tflite"
  content = tagger.read_bytes()
  for other in (None, b"", b"text", content[:-7000], content[-7000:]):
    if other is not None:
      path.write_bytes(other)
    with pytest.raises(YamnetError, match=r"a\.tflite: expected YAMNet as a TFLite file") as error:
      Yamnet(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("clip", "label"), [("dog/video_02677.mp4", "Dog"), ("brass/playing_trumpet.mp4", "Music"), (None, "Silence")]
)
def test_yamnet_recognises_real_sound(shared, tagger, clip, label):
  samples = np.zeros(48000, np.float32) if clip is None else read_sound(shared / "data" / "clips" / clip)
  yamnet = Yamnet(tagger)
  scores = yamnet.scores(samples, np.arange(0, len(samples) / 16000, 0.5))
  top = np.argsort(scores.astype(np.float32).mean(axis=0))[::-1][:3]
  assert label in [yamnet.classes[i] for i in top] and scores.dtype == np.float16 and scores.min() >= 0


def test_records_get_the_scores_of_their_clips(tmp_path, tagger, capsys):
  """Finished records of a video in three segments get scores of the second around each frame within its segment."""
  (tmp_path / "root" / "a").mkdir(parents=True)
  noise = np.random.default_rng(0).normal(size=(1, 48000)).astype(np.float32)
  sound = 0.2 * noise * np.linspace(0, 1, 48000) + 0.5 * np.sin(np.arange(48000) / 5) * (np.arange(48000) % 9000 < 3000)
  path = write_video(
    tmp_path / "root" / "a" / "x.mkv",
    ramp(30),
    sound=sound.astype(np.float32),
    sound_codec="pcm_s16le",
    sound_rate=16000,
  )
  write_video(tmp_path / "root" / "a" / "mute.mp4", ramp(10))
  out, command = tmp_path / "out", ["folders", "--root", str(tmp_path / "root"), "--side", "32", "--processes", "1"]
  command += ["--out", str(out), "--segment", "1"]
  assert main(command) == 0
  before = contents(out)
  assert main([*command, "--tagger", str(tagger)]) == 0
  assert "yamnet.tflite has heard train" in capsys.readouterr().out
  after = contents(out)
  assert before.items() <= after.items() and {Path(name).parts[1] for name in after - before.keys()} == {"class_scores"}
  assert not [path for path in out.iterdir() if path.name != "train"]
  records, found, yamnet = Records.open(out / "train"), ClassScores.open(out / "train"), Yamnet(tagger)
  assert records.names == ("a_mute", "a_x#000", "a_x#001", "a_x#002")
  assert found.classes == yamnet.classes and not found.clip_scores("a_mute", 8).any()
  samples = read_sound(path)
  for number, end in enumerate((16000, 32000, 48000)):
    own = np.pad(samples[16000 * number : end], 7800, mode="reflect")
    windows = [own[2000 * frame : 2000 * frame + 15600] for frame in range(8)]
    middle = np.array([7800 / 16000])
    expected = np.concatenate([yamnet.scores(window, middle) for window in windows])
    np.testing.assert_array_equal(found.clip_scores(f"a_x#{number:03d}", 8), expected)
  assert main([*command, "--tagger", str(tagger)]) == 0 and contents(out) == after
  # The scores of another tagger are not mixed with these, and a changed sound is noticed.
  summary = out / "train" / "class_scores" / "summary.json"
  summary.write_text(summary.read_text().replace(yamnet.sha256, "0"))
  assert (
    main([*command, "--tagger", str(tagger)]) == 2 and "delete it to have them made again" in capsys.readouterr().err
  )
  part = ScoredClip("key", 0, 8, 99, False)
  reason = stage_scores(Item("a_x", path), (part,), tagger, tmp_path / "staging", MediaSettings(side=32), Limits())
  assert reason == "its sound has 98 spectrogram columns, but 99 in the records: has the file changed?"
