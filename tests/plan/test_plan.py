"""Tests of a plan against the paper's Table 5, and of its counts against products that are counted one by one."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from helpers.paths import CONFIGS
from stajax import config as configuration
from stajax.config import Config, Training
from stajax.plan import __main__ as plan
from stajax.plan.count import count_macs
from stajax.plan.stages import find_categories

NETWORKS = [name for name, field in Config.model_fields.items() if field.annotation is Training]
IMAGES = ("NHWC", "HWIO", "NHWC")
VOLUMES = ("NDHWC", "DHWIO", "NDHWC")


def test_products_of_integers_are_counted_apart():
  def both(x, kernel):
    integers = lax.conv_general_dilated(
      x.astype(jnp.int8), kernel.astype(jnp.int8), (1, 1), "SAME", dimension_numbers=IMAGES,
      preferred_element_type=jnp.int32,
    )  # fmt: skip
    return integers, lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=IMAGES)

  shapes = jax.ShapeDtypeStruct((1, 4, 4, 3), jnp.float32), jax.ShapeDtypeStruct((3, 3, 3, 5), jnp.float32)
  integers, floats = 16 * 9 * 15, 4 * 9 * 15
  assert count_macs(both, *shapes, dtype=jnp.int8) == integers
  assert count_macs(both, *shapes) == integers + floats


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (["--int8"], "--int8, --batch, --clips and --as-configured need --topology"),
    (["--int8", "--topology", "cpu", "--stage", "st_plus"], "--int8 is for inference: expected --dense or"),
  ],
)
def test_integers_without_inference_are_refused(options, message, capsys):
  assert plan.main(["--config", str(CONFIGS / "ave.py"), *options]) == 2
  error = capsys.readouterr().err
  assert message in error and error.count("\n") == 1


@pytest.fixture(scope="module")
def ave():
  """Runs the command for the paper's setting; its standard error lists what it loaded of TensorFlow."""
  program = "import sys; from stajax import __main__; code = __main__.main(sys.argv[1:])"
  program += "; print([name for name in sys.modules if name.startswith('tensorflow')], file=sys.stderr); sys.exit(code)"
  command = [sys.executable, "-c", program, "plan", "--config", str(CONFIGS / "ave.py"), "--json"]
  child = subprocess.run([*command, "--data.path", "no/such/folder"], capture_output=True, text=True)
  assert child.returncode == 0, child.stderr
  return child


@pytest.fixture(scope="module")
def networks(ave):
  return json.loads(ave.stdout)["networks"]


def test_prints_one_object_and_loads_no_tensorflow(ave, networks):
  assert ave.stdout.count("\n") == 1 and ave.stderr == "[]\n"
  assert json.loads(ave.stdout)["categories"] == 28
  assert "data.expected_categories" in json.loads(ave.stdout)["categories_from"]
  assert list(networks) == NETWORKS
  for cost in networks.values():
    assert cost["gflop"] == pytest.approx(2 * cost["gmac"]) and cost["params"] > 1e7


# Where the table is consistent: what it says of S and S+ is a plain VGG-16's, so S+ is held to a third of ST+.
@pytest.mark.parametrize(
  ("name", "key", "published", "tolerance"),
  [
    ("st_plus", "params", 21.86e6, 0.01),
    ("st_plus", "gmac", 294.93, 0.01),
    ("st_plus", "gflop", 590.32, 0.01),
    ("s_plus", "gmac", 294.93 / 3, 0.01),
    ("sa_plus", "gmac", 100.14, 0.03),
  ],
)
def test_costs_are_those_of_table_5(networks, name, key, published, tolerance):
  assert networks[name]["size"] == 256
  assert networks[name][key] == pytest.approx(published, rel=tolerance)


def test_one_example_is_a_group_at_the_configured_size(networks):
  assert networks["st_plus"]["inputs"] == {"frames": [3, 3, 256, 256, 3]} and networks["st_plus"]["frames"] == 9
  assert networks["tagger"]["inputs"] == {"sound": [1, 257, 98]} and networks["tagger"]["size"] == 0
  assert networks["sta"]["inputs"] == {"frames": [1, 3, 356, 356, 3], "sound": [1, 257, 98], "switch": [1]}
  assert networks["sa_plus"]["trained"] == ["sa_plus_long", "sa_plus_cross"]
  assert sum(len(cost["trained"]) for cost in networks.values()) == 21  # six, three taggers, a switch, eight, three


def ones(*shape):
  return jnp.ones(shape, jnp.float32)


def convolution(x, kernel, strides=(1, 1), padding="VALID", numbers=IMAGES, **settings):
  return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers, **settings)


# Of ones, every element of the result is the number of products in it, where no padding counts.
@pytest.mark.parametrize(
  ("function", "shapes"),
  [
    (convolution, [(2, 9, 7, 3), (3, 3, 3, 4)]),
    (lambda x, k: convolution(x, k, strides=(2, 3)), [(1, 9, 11, 3), (3, 2, 3, 5)]),
    (lambda x, k: convolution(x, k, rhs_dilation=(2, 1)), [(1, 10, 8, 2), (3, 3, 2, 4)]),
    (lambda x, k: convolution(x, k, feature_group_count=2), [(1, 6, 6, 4), (3, 3, 2, 6)]),
    (lambda x, k: convolution(x, k, batch_group_count=2), [(4, 6, 6, 3), (3, 3, 3, 6)]),
    (lambda x, k: convolution(x, k, (1, 1, 1), numbers=VOLUMES), [(1, 3, 5, 5, 2), (3, 1, 1, 2, 4)]),
    (lambda x, k: lax.conv_transpose(x, k, (2, 2), "VALID", dimension_numbers=IMAGES), [(2, 5, 4, 3), (4, 4, 3, 6)]),
    (lambda x, k: lax.conv_transpose(x, k, (1, 1), "VALID", dimension_numbers=IMAGES), [(2, 1, 1, 8), (4, 4, 8, 6)]),
    (lambda x, y: x @ y, [(5, 7), (7, 3)]),
    (lambda x, y: jnp.einsum("bnqc,bnopc->bnqop", x, y), [(2, 3, 4, 5), (2, 3, 2, 6, 5)]),
    (lambda x, y: jnp.einsum("bqp,bpc->bqc", x, y), [(3, 4, 5), (3, 5, 6)]),
    (lambda xs, y: lax.map(lambda x: x @ y, xs), [(6, 2, 3), (3, 4)]),
    (lambda xs, y: lax.map(jax.checkpoint(lambda x: jax.jit(jnp.matmul)(x, y)), xs), [(6, 2, 3), (3, 4)]),
    (lambda xs, y: lax.map(lambda ys: lax.map(lambda x: ys @ x, xs), y), [(6, 3, 2), (5, 4, 3)]),
    (lambda x, y: jax.vmap(lambda x: jax.nn.relu(x @ y))(x), [(6, 2, 3), (3, 4)]),
    (lambda x, y: lax.cond(True, lambda: x @ y, lambda: jnp.zeros((2, 4))), [(2, 3), (3, 4)]),
  ],
)
def test_counts_each_product_once(function, shapes):
  arrays = [ones(*shape) for shape in shapes]
  assert count_macs(function, *arrays) == int(jnp.sum(function(*arrays)))


@pytest.mark.parametrize("padding", ["VALID", [(1, 1), (1, 1)]])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_gradient_costs_the_convolution_twice_more(padding, stride):
  """The gradients with respect to the input and to the kernel are convolutions of quite different forms."""
  x, kernel = ones(2, 9, 12, 3), ones(3, 3, 3, 5)

  def forward(x, kernel):
    return convolution(x, kernel, (stride, stride), padding)

  def both(x, kernel):
    y, pull = jax.vjp(forward, x, kernel)
    return y, pull(y)

  assert count_macs(both, x, kernel) == 3 * count_macs(forward, x, kernel)


def test_padding_counts_and_zeros_between_inputs_do_not():
  x = jax.ShapeDtypeStruct((1, 32, 32, 6), jnp.float32)
  same = count_macs(lambda x: convolution(x, ones(3, 3, 6, 8), padding="SAME"), x)
  dilated = count_macs(lambda x: convolution(x, ones(3, 3, 6, 8), padding="SAME", rhs_dilation=(2, 2)), x)
  assert same == dilated == 32 * 32 * 9 * 6 * 8
  strided = count_macs(lambda x: convolution(x, ones(7, 7, 6, 8), (2, 2), [(3, 3), (3, 3)]), x)
  assert strided == 16 * 16 * 49 * 6 * 8
  grown = count_macs(lambda x: lax.conv_transpose(x, ones(4, 4, 6, 8), (2, 2), "SAME"), x)
  assert grown == 32 * 32 * 16 * 6 * 8  # to 64×64: every input meets every tap


def test_products_in_a_loop_of_unknown_length_are_refused():
  with pytest.raises(ValueError, match="while"):
    count_macs(lambda x: lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x @ x, x), ones(2, 2))
  assert count_macs(lambda x: lax.while_loop(lambda x: x[0] < 9, lambda x: x + x, x), ones(2)) == 0
  assert count_macs(lambda x: lax.fori_loop(0, 5, lambda _, x: x @ x, x), ones(2, 2)) == 5 * 8


def test_categories_come_from_the_data(tmp_path):
  config = Config(name="x", data=configuration.Data(path=str(tmp_path)))
  assert find_categories(config)[0] == 28
  (tmp_path / "summary.json").write_text('{"categories": ["a", "b", "c"]}')
  assert find_categories(config) == (3, str(tmp_path / "summary.json"))
  assert find_categories(config, 7)[0] == 7
  assert find_categories(configuration.load(CONFIGS / "quickstart.py"))[0] == 10


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"categories": 3}', '{"categories": []}', "\udcff"])
def test_a_damaged_summary_is_one_line(tmp_path, capsys, text):
  path = tmp_path / "summary.json"
  path.write_bytes(text.encode("utf-8", "surrogateescape"))
  assert plan.main(["--config", str(CONFIGS / "ave.py"), "--json", "--data.path", str(tmp_path)]) == 2
  out, error = capsys.readouterr()
  assert not out and error.startswith(f"stajax plan: {path}: ") and error.count("\n") == 1


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--config", "none.py"], "none.py: no such"),
    (["--config", str(CONFIGS / "ave.py"), "--categories", "0"], "at least 1"),
  ],
)
def test_bad_arguments_are_one_line(arguments, message, capsys):
  assert plan.main(arguments) == 2
  out, error = capsys.readouterr()
  assert not out and error.startswith("stajax plan: ") and message in error and error.count("\n") == 1


@pytest.mark.slow
def test_the_table_names_every_network():
  """The table shows what the overrides change."""
  command = [sys.executable, "-m", "stajax.plan", "--config", str(CONFIGS / "quickstart.py"), "--st_plus.size", "64"]
  child = subprocess.run(command, capture_output=True, text=True)
  assert child.returncode == 0 and not child.stderr
  first, head, *rows = child.stdout.splitlines()
  assert first.startswith("quickstart: 10 categories (from the synthetic clips)") and "GMAC" in head
  assert [row.split()[0] for row in rows] == NETWORKS
  assert next(row for row in rows if row.startswith("st_plus ")).endswith("frames 3×3×64×64×3")


def test_the_paper_is_configured():
  ave = configuration.load(CONFIGS / "ave.py")
  numbers = {name: (t.size, t.batch, t.optimizer.learning_rate) for name in NETWORKS for t in [getattr(ave, name)]}
  for branch in ("s", "st", "sa"):
    assert numbers[f"{branch}_coarse"] == (256, 20, 1e-3) and numbers[branch] == (356, 3, 1e-3)
    assert numbers[f"{branch}_plus"] == (256, 16, 1e-3)
  assert numbers["switch"] == (256, 20, 1e-3) and numbers["sta"] == numbers["sta_plus"] == (356, 3, 5e-5)
  for optimizer in (getattr(ave, name).optimizer for name in NETWORKS):
    assert (optimizer.name, optimizer.multipliers, optimizer.weight_decay) == ("sgd", (1, 2, 10, 20), 1e-4)
  assert ave.network.depths == (2, 2, 3, 3, 3) and ave.network.audio_pooling == "netvlad"


def test_the_defaults_are_the_paper():
  ave = configuration.load(CONFIGS / "ave.py")
  assert configuration.differences(Config(name="ave", data=ave.data), ave) == []


def test_vggsound_is_ave_but_longer():
  ave, vggsound = (configuration.load(CONFIGS / f"{name}.py") for name in ("ave", "vggsound"))
  changed = {line.split(":")[0] for line in configuration.differences(ave, vggsound)}
  assert changed == {"name", "data.path", "data.expected_categories", *(f"{name}.steps" for name in NETWORKS)}
  assert configuration.loads(configuration.dumps(vggsound), "x") == vggsound
  here = vggsound.model_copy(update={"data": vggsound.data.model_copy(update={"path": None})})
  assert find_categories(here)[0] == 309
