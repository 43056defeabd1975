"""Batches that devices do not divide are filled up; the examples that count are those of the batch."""

import numpy as np
import pytest

from helpers.fake_records import fake_records

pytest.importorskip("tensorflow")

from stajax.data.batch_settings import HostShare, NetworkInputs, Sampling, TrainingSet
from stajax.data.batches import make_batches


@pytest.mark.parametrize(("num_hosts", "num_devices"), [(1, 8), (2, 2), (2, 4), (4, 8)])
def test_what_fills_a_batch_up_repeats_its_last_example(tmp_path, num_hosts, num_devices):
  """The examples are in the order of the batch, and every device has as many slots."""
  settings = (
    TrainingSet(fake_records(tmp_path, side=64, number=6)),
    NetworkInputs(1, True, 64, companions="short"),
    Sampling(seed=3, global_batch=3, min_scale=0.7, flip=True),
    range(2),
  )
  hosts = [list(make_batches(*settings, HostShare(host, num_hosts, 1, num_devices))) for host in range(num_hosts)]
  slots = -(-3 // num_devices) * num_devices
  for whole, *parts in zip(make_batches(*settings), *hosts, strict=True):
    assert {len(part["counts"]) for part in parts} == {slots // num_hosts}
    filled = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    np.testing.assert_array_equal(filled.pop("counts"), [3] * 3 + [0] * (slots - 3))
    assert whole.keys() == filled.keys()
    for name, x in whole.items():
      np.testing.assert_array_equal(filled[name], x[np.minimum(np.arange(slots), 2)], err_msg=name)
