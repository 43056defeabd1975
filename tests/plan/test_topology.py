"""Tests of plans for hardware that is not there: its names, what compilers say, and what follows from that."""

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest

from helpers.paths import ROOT
from stajax import cli, networks
from stajax import config as configuration
from stajax.plan import __main__ as plan
from stajax.plan import compile as compiling
from stajax.plan import cost, topology
from stajax.plan.count import count_macs
from stajax.plan.per_network import plan_networks
from stajax.plan.per_stage import Workload, plan_stage
from stajax.plan.stages import PREDICT

QUICKSTART = ROOT / "configs" / "quickstart.py"


@pytest.mark.parametrize(
  ("name", "chips", "devices"),
  [("v4:2x2x1", 4, 8), ("v5e:2x4", 8, 8), ("v5p:8x8x16", 1024, 1024), ("h100:8", 8, 8), ("cpu", 1, 1), ("cpu:8", 8, 8)],
)
def test_a_name_gives_the_number_of_chips(name, chips, devices):
  found = topology.parse(name)
  assert (found.num_chips, found.num_devices) == (chips, devices)


@pytest.mark.parametrize(
  "name", ["", "v9:2x2", "v5litepod:2x4", "v5e", "v5e:3x3", "v4:2x2", "h100:0", "h100:9", "h100:²", "cpu:9"]
)
def test_unknown_names_are_one_line_with_what_is_expected(name, capsys):
  with pytest.raises(topology.TopologyError, match="expected"):
    topology.parse(name)
  assert plan.main(["--config", str(QUICKSTART), "--topology", name, "--stage", "s"]) == 2
  out, error = capsys.readouterr()
  assert not out and error.count("\n") == 1 and error.startswith("stajax plan: ")


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--topology", "cpu"], "--stage: found none, expected one of s_coarse"),
    (["--topology", "cpu", "--stage", "st_pluss"], "found st_pluss"),
    (["--topology", "cpu", "--stage", "s", "--batch", "0"], "at least 1"),
    (["--stage", "s"], "need --topology"),
    (["--clips", "5"], "need --topology"),
    (["--topology", "cpu", "--stage", "s", "--clips", "5"], "--clips 5: expected at least 1"),
    (["--topology", "cpu", "--stage", "s", "--as-configured", "--batch", "2"], "without --batch"),
  ],
)
def test_bad_arguments_are_one_line(arguments, message, capsys):
  assert plan.main(["--config", str(QUICKSTART), *arguments]) == 2
  out, error = capsys.readouterr()
  assert not out and message in error and error.count("\n") == 1


@pytest.mark.parametrize(("name", "extra"), [("v5e:2x4", "tpu"), ("h100:1", "gpu")])
def test_a_missing_compiler_is_one_line_with_its_extra(name, extra, monkeypatch):
  found = importlib.util.find_spec
  hidden = ("libtpu", "jax_plugins")
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith(hidden) else found(name))
  with pytest.raises(topology.TopologyError, match=rf"stajax\[{extra}\]"):
    topology.devices(topology.parse(name))


HLO = """
  %all-reduce.1 = (bf16[512,28]{1,0:T(8,128)(2,1)}, f32[]{:T(128)}) all-reduce(%fusion.2, %add), channel_id=1
  ROOT %all-reduce.2 = f32[64]{0:T(128)} all-reduce(%fusion.3), channel_id=2
  %ag = (f32[8,4]{1,0}, f32[64,4]{1,0}) all-gather-start(%p), channel_id=3
  %agd = f32[64,4]{1,0} all-gather-done(%ag)
  %start = (f32[10]{0}, f32[10]{0}) all-reduce-start(%a, %b), channel_id=4
  %done = (f32[10]{0}, f32[10]{0}) all-reduce-done(%start)
"""


def test_collectives_are_read_from_the_program():
  found = cost.collectives(HLO)
  assert found == {
    "all-reduce": {"count": 3, "bytes": 512 * 28 * 2 + 4 + 64 * 4 + 80},
    "all-gather": {"count": 1, "bytes": (8 * 4 + 64 * 4) * 4 // 2},
  }


def test_a_sum_goes_through_every_chip_twice():
  found = {"all-reduce": {"count": 1, "bytes": 1000}}
  assert cost.exchange_seconds(found, topology.parse("v5e:2x4")) == pytest.approx(2 * 1000 * 7 / 8 / 200e9)
  assert cost.exchange_seconds(found, topology.parse("v5e:1x1")) == 0


def test_the_second_that_the_compiler_subtracts_is_added_back():
  call = 'custom-call(), custom_call_target="ConcatBitcast"\n'
  assert cost.compiler_seconds({"optimal_seconds": -1.885}, 2 * call) == pytest.approx(0.115)
  assert cost.compiler_seconds({"optimal_seconds": 0.1}, "") == 0.1
  for wrong in (-1.885, 1.2, 0.0):
    assert cost.compiler_seconds({"optimal_seconds": wrong}, "") is None
  assert cost.compiler_seconds(None, "") is None and cost.compiler_seconds({}, "") is None


def test_the_analysis_of_a_loop_is_not_used():
  """The compiler's analysis counts one round of a loop, which is a tenth of the products here."""

  def text(unroll: int) -> tuple[float, str]:
    def product(x, _):
      return x @ x, None

    run = jax.jit(lambda x: jax.lax.scan(product, x, length=10, unroll=unroll)[0])
    compiled = run.lower(jax.ShapeDtypeStruct((64, 64), "float32")).compile()
    return compiled.cost_analysis()["flops"], compiled.as_text()

  (once, loop), (ten, unrolled) = text(1), text(10)
  assert ten > 5 * once
  assert cost.has_loop(loop) and not cost.has_loop(unrolled)
  assert cost.compiler_seconds({"optimal_seconds": 0.1}, loop) is None


def test_all_memory_but_parameters_grows_with_the_batch():
  memory = {"arguments": 100 + 80, "outputs": 10, "temporary": 720, "code": 0, "of_batch": 80}  # 8 examples: 100 each
  assert cost.largest_batch(memory, 8, (110 + 32 * 100) / 0.98 + 1) == 32
  assert cost.largest_batch(memory, 8, 100) == 0


def part(seconds, **changes):
  memory = {"arguments": 10, "outputs": 0, "temporary": 80, "code": 0, "of_batch": 0}
  usual = {"times": 1, "flops": 197e12 * 0.01, "bytes": 819e9 * 0.02, "seconds": seconds, "flop_floor": 0.01}
  usual |= {"byte_floor": 0.02, "collectives": {}, "memory": memory, "peak_memory": 90}
  return {**usual, **changes}


def test_programs_run_one_after_the_other():
  target = topology.parse("v5e:1x1")
  found = cost.summary({"a": part(0.03), "b": part(0.04, times=2, peak_memory=50, flop_floor=0.03)}, 8, target)
  assert found["seconds"] == pytest.approx(0.11) and found["per_second_a_chip"] == pytest.approx(8 / 0.11)
  assert found["share_of_peak"] == pytest.approx(0.07 / 0.11) and found["peak_memory"] == 90
  assert found["at_best"] == pytest.approx(8 / (0.02 + 2 * 0.03))
  unknown = cost.summary({"a": part(0.03), "b": part(None)}, 8, target)
  assert unknown["seconds"] is None and unknown["per_second_a_chip"] is None and unknown["at_best"]


def test_a_chip_of_two_devices_counts_both():
  found = cost.summary({"a": part(0.1, flop_floor=0.05)}, 8, topology.parse("v4:2x2x1"))
  assert found["per_second_a_chip"] == pytest.approx(160) and found["share_of_peak"] == pytest.approx(0.5)
  assert found["memory_limit"] == 16 * 2**30


def test_chip_hours_do_not_depend_on_how_many_chips():
  one, many = (cost.durations(3600 * 50 * 16, 50, topology.parse(f"v5e:{shape}")) for shape in ("1x1", "4x4"))
  assert one["chip_hours"] == many["chip_hours"] == one["hours"] == pytest.approx(16)
  assert many["hours"] == pytest.approx(1)


def test_stored_sides_are_those_that_jpegs_can_be_decoded_at():
  config = configuration.load(ROOT / "configs" / "ave.py")
  sides = {64: 64, 100: 128, 256: 256, 257: 512, 356: 512, 600: 512}
  assert {size: compiling.stored_side(config, size, False) for size in sides} == sides
  assert compiling.stored_side(config, 256, True) == 512
  assert compiling.stored_side(configuration.load(QUICKSTART), 128, False) == 128


_OTHERS = (pytest.param(name, marks=pytest.mark.slow) for name in ("switch", "tagger_0", "sa", "students"))


@pytest.mark.parametrize("name", ["st_plus_long", "sta", *_OTHERS])
def test_the_step_is_that_of_training(name):
  """The same shapes give the program that `stajax train` runs."""
  from stajax.train import programs, step

  config = configuration.load(QUICKSTART)
  mesh = step.make_mesh(jax.devices()[:1])
  network, update, planned = compiling.make_train_step(config, name, 10, mesh)
  training = networks.training_of(name, config)
  usual = programs.make_programs(network, training, networks.NETWORKS[name].learns_fixations, mesh).train_step
  variables = networks.expected_variables(network, training.size)
  state = jax.eval_shape(lambda variables: step.make_state(variables, update), variables)
  batch = compiling.batch_shapes(config, name, 10, 2)
  assert planned.lower(state, batch).as_text() == usual.lower(state, batch).as_text()


def run(*arguments):
  command = [sys.executable, "-m", "stajax.plan", "--config", str(QUICKSTART), *arguments]
  return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
def test_a_step_is_planned_for_the_cpu():
  child = run("--topology", "cpu", "--stage", "s", "--batch", "2", "--json", "--s.size", "32")
  assert child.returncode == 0 and not child.stderr
  found = json.loads(child.stdout)
  assert found["unit"] == "clips" and found["dtype"] == "float32" and found["networks"] == ["s"]
  assert found["flops"] > 0 and found["peak_memory"] > found["params"] and found["collectives"] == {}
  assert found["seconds"] is None and found["sets"] == {"AVE": None, "VGGSound": None}


def test_a_step_on_eight_devices_exchanges_gradients_alone():
  """A batch of 3 fills 3 of 8 slots, and needs no message of its own."""
  options = ("--s.size", "32", "--s.batch", "3", "--network.norm", "group", "--network.width", "0.125")
  child = run("--topology", "cpu:8", "--stage", "s", "--as-configured", "--json", *options)
  assert child.returncode == 0 and not child.stderr, child.stderr
  found = json.loads(child.stdout)
  assert (found["devices"], found["batch"], found["slots"], found["clips"]) == (8, 1, 8, 3)
  gradients = 4 * found["params"]
  assert found["collectives"].keys() == {"all-reduce"} and found["collectives"]["all-reduce"]["count"] == 1
  assert 0 <= found["collectives"]["all-reduce"]["bytes"] - gradients <= 16  # the loss and the metrics with them


def test_what_fills_a_batch_up_costs_what_examples_cost():
  """By XLA's own count, 20 of 24 slots cost as much as a batch of 24, and 24/20 of what a batch of 20 costs."""
  sizes = {"network": {"width": 0.0625, "norm": "group"}, "s_coarse": {"size": 64, "batch": 20}}
  config = configuration.Config(name="a", **sizes)  # pyright: ignore[reportArgumentType]

  def flops(batch, devices, filled_up=False):
    (program,) = compiling.training_step(config, "s_coarse", 3, batch, jax.devices()[:devices], filled_up)
    return devices * (program.compiled.cost_analysis() or {})["flops"]

  filled = flops(3, 8, filled_up=True)
  assert filled == pytest.approx(flops(3, 8), rel=1e-3)
  assert filled == pytest.approx(flops(5, 4) * 24 / 20, rel=0.02)


def test_a_set_of_ones_own_is_planned_beside_the_others(monkeypatch):
  """Ten million clips of 80 frames, at 50 frames a second of each of 16 chips."""
  from stajax.plan import per_stage

  monkeypatch.setattr(cost, "summary", lambda costs, batch, target: {"per_second_a_chip": 50.0, "at_best": None})
  monkeypatch.setattr(per_stage, "_compile", lambda *_: [])
  monkeypatch.setattr(plan.topology, "prepare_process", lambda target: None)
  asked = []
  monkeypatch.setattr(per_stage, "format_stage", lambda found, target: asked.append(found["sets"]) or "")
  options = ["--config", str(QUICKSTART), "--topology", "v5e:4x4", "--stage", "predict", "--clips", "10000000"]
  assert plan.main(options) == 0
  (sets,) = asked
  assert list(sets) == ["AVE", "VGGSound", "10000000 clips"] and sets["10000000 clips"]["examples"] == 8e8
  assert sets["10000000 clips"]["chip_hours"] == pytest.approx(8e8 / 50 / 3600)
  assert sets["10000000 clips"]["hours"] == pytest.approx(8e8 / 50 / 3600 / 16)


def test_inference_is_planned_in_parts():
  target = topology.parse("cpu")
  config = cli.override(
    configuration.load(QUICKSTART), ["--sta.size", "32", "--sta_plus.size", "32", "--network.width", "0.125"]
  )
  found = plan_stage(config, 10, target, Workload(PREDICT, True, 4))
  parts = {"frames", "sound", "fragments", "groups"}
  assert {name.split()[1] for name in found["programs"]} == parts and len(found["programs"]) == 8
  assert {x["times"] for name, x in found["programs"].items() if name.startswith("sta_plus_short")} == {2}
  assert found["unit"] == "frames" and found["flops"] > 0


@pytest.mark.slow
def test_shared_students_are_planned_as_one():
  """An example has 15 frames where the three networks have 21; prediction encodes frames and sounds once."""
  sizes = ["--sta.size", "32", "--sta_plus.size", "32", "--network.width", "0.125", "--network.norm", "none"]
  sizes.append("--network.no-fine-read-out")  # with it STA+ refines the frames too, each student by itself
  separate, shared = (
    cli.override(configuration.load(QUICKSTART), [*sizes, "--students.backbone", backbone])
    for backbone in ("separate", "shared")
  )
  student = networks.make_network("sta_plus_short", separate, 10)
  frame, variables = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32"), networks.expected_variables(student, 32)
  encode = count_macs(lambda *x: student.apply(*x, method="encode_frames"), variables, frame)
  apart, together = (plan_networks(config, 10) for config in (separate, shared))
  found = together.pop("students")
  assert together == {name: x for name, x in apart.items() if name not in ("sta", "sta_plus")}
  assert found["frames"] == 15 and found["inputs"]["frames"] == [5, 3, 32, 32, 3] and found["trained"] == ["students"]

  target = topology.parse("cpu")
  predicted, costs = (plan_stage(config, 10, target, Workload(PREDICT, True, 4)) for config in (separate, shared))
  hear = costs["programs"]["sta sound"]["flops"] // (2 * 4)
  saved = apart["sta"]["gmac"] + 2 * apart["sta_plus"]["gmac"] - found["gmac"]
  assert 1e9 * saved == pytest.approx(6 * encode + 2 * hear)
  assert predicted["flops"] - costs["flops"] == 2 * 4 * 2 * (encode + hear)
  own = ("fragments", "groups")
  parts = {f"{name} {part}": number for name, number in (("sta", 1), ("sta_plus_short", 2)) for part in own}
  times = {name: x["times"] for name, x in costs["programs"].items()}
  assert times == {"sta frames": 1, "sta sound": 1, **parts}


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed (extra `tpu`)")
def test_a_step_is_planned_for_a_tpu():
  """The shape is small; libtpu's messages stay off the screen."""
  child = run("--topology", "v5e:2x2", "--stage", "s_plus", "--batch", "2", "--json", "--s_plus.size", "32")
  assert child.returncode == 0 and not child.stderr, child.stderr
  found = json.loads(child.stdout)
  assert found["dtype"] == "bfloat16" and found["chips"] == 4
  assert max(found["flop_floor"], found["byte_floor"]) > 0 and found["seconds"] > 0
  assert found["collectives"]["all-reduce"]["bytes"] > 0
  assert found["sets"]["AVE"]["chip_hours"] == pytest.approx(4 * found["sets"]["AVE"]["hours"])
  assert found["largest_batch"] > 2 and found["peak_memory"] < found["memory_limit"]


def test_running_out_of_memory_is_one_line():
  class Lowered:
    def compile(self):
      raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory: used 20.00G of\n 15.75G hbm")

  function = SimpleNamespace(lower=lambda: Lowered())
  with pytest.raises(topology.DoesNotFit, match="step does not fit: RESOURCE_EXHAUSTED"):
    compiling._compile("step", 1, function, jax.make_mesh((1,), ("data",)), (), ())
