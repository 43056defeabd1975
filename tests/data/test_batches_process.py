"""A process that reads batches and ends before it has read them all."""

import subprocess
import sys

import pytest

from helpers.fake_records import fake_records

pytest.importorskip("tensorflow")


def test_a_process_that_stops_midway_keeps_its_exit_code(tmp_path):
  """TensorFlow's threads abort a process that ends with an exception while they read ahead."""
  records = fake_records(tmp_path, side=64)
  code = f"""
from stajax.data.batch_settings import NetworkInputs, Sampling, TrainingSet
from stajax.data.batches import make_batches
from stajax.data.records import Records
training_set = TrainingSet(Records.open({str(records.path)!r}))
made = make_batches(training_set, NetworkInputs(1, True, 64), Sampling(seed=0, global_batch=4), range(10**6))
next(made)
raise SystemExit(3)
"""
  assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120).returncode == 3
