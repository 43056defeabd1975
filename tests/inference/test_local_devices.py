"""Every device of a process takes its next item when it is free; errors and early ends leave no thread behind."""

import threading

import jax
import pytest

from stajax.inference.local_devices import local_devices, on_local_devices


def is_quiet():
  return not any(thread.name.startswith("device ") for thread in threading.enumerate())


def test_no_more_devices_than_items():
  """The first one is the default, where nothing needs to be placed."""
  assert local_devices(99) == [None, *jax.local_devices()[1:]]
  assert local_devices(3) == [None, *jax.local_devices()[1:3]]
  assert local_devices(1) == local_devices(0) == [None]


def test_every_device_works_at_the_same_time():
  together = threading.Barrier(8, timeout=60)

  def work(device, items):
    for item in items:
      together.wait()
      yield device, item

  found = list(on_local_devices(range(8), work))
  assert sorted(item for _, item in found) == list(range(8))
  assert {device for device, _ in found} == {None, *jax.local_devices()[1:]} and is_quiet()


def test_a_free_device_takes_the_next_item():
  """While one device is busy with its first item, the others do all the rest."""
  rest_is_done = threading.Event()

  def work(device, items):
    for item in items:
      if device is None:
        assert rest_is_done.wait(60)
      yield device, item

  found = []
  for each in on_local_devices(range(50), work):
    found.append(each)
    if len(found) >= 49:
      rest_is_done.set()
  assert sorted(item for _, item in found) == list(range(50)) and is_quiet()
  assert sum(device is None for device, _ in found) == 1


def test_one_device_works_in_the_callers_thread_in_order():
  def work(device, items):
    for item in items:
      yield device, item, threading.current_thread()

  assert list(on_local_devices([7], work)) == [(None, 7, threading.current_thread())]
  assert list(on_local_devices([], work)) == []


def test_a_device_works_on_several_items_at_the_same_time():
  together = threading.Barrier(16, timeout=60)

  def work(device, items):
    for item in items:
      together.wait()
      yield device, item

  found = list(on_local_devices(range(16), work, threads=2))
  assert sorted(item for _, item in found) == list(range(16)) and is_quiet()
  assert all(sum(each is device for each, _ in found) == 2 for device in local_devices())
  assert list(on_local_devices([7], lambda device, items: ((device, item) for item in items), 2)) == [(None, 7)]


def test_an_error_is_raised_and_ends_the_others():
  begun = []

  def work(device, items):
    for item in items:
      begun.append(item)
      if item == 5:
        raise ValueError("broken")
      yield item

  with pytest.raises(ValueError, match="broken"):
    for _ in on_local_devices(range(10_000), work):
      pass
  assert len(begun) < 10_000 and is_quiet()


def test_leaving_early_ends_all():
  """Devices wait while nobody takes their results, so they are never far ahead."""
  begun = []

  def work(device, items):
    for item in items:
      begun.append(item)
      yield item

  results = on_local_devices(range(10_000), work)
  next(results)
  results.close()
  assert len(begun) < 100 and is_quiet()
