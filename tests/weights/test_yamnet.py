"""YAMNet's first blocks, read from a TFLite file, against TFLite's own interpreter; and files that are refused."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest

from helpers.paths import SHARED
from helpers.tiny import quick_jit
from stajax.nets.yamnet import YAMNet, mel_matrix
from stajax.weights import convert, tflite_file, yamnet
from stajax.weights.store import Arrays, WeightsError, unflatten

FILE = SHARED / "weights" / "yamnet.tflite"
needs_file = pytest.mark.skipif(not FILE.is_file(), reason="needs ../shared/weights/yamnet.tflite")
LAYERS = 25  # the stem and twelve blocks of two layers


def published_shapes():
  """Returns the shapes in the published file, by its names."""
  rows = [(32, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), *[(512, 512)] * 5, (512, 1024)]
  layer = "tower0/network/layer"
  shapes = {"mel_spectrogram": (64, 257), f"{layer}1/conv/Conv2D": (32, 3, 3, 1)}
  shapes[f"{layer}1/conv/BatchNorm/FusedBatchNormV3"] = (32,)
  for block, (inputs, outputs) in enumerate(rows):
    depthwise, pointwise = f"{layer}{2 * block + 2}/sepconv", f"{layer}{2 * block + 3}/conv"
    norm = f"{depthwise}/BatchNorm/FusedBatchNormV3"
    shapes[f"{norm};{depthwise}/depthwise;{layer}26/sepconv/depthwise"] = (1, 3, 3, inputs)
    shapes[norm] = (inputs,)
    shapes[f"{pointwise}/Conv2D"] = (outputs, 1, 1, inputs)
    shapes[f"{pointwise}/BatchNorm/FusedBatchNormV3"] = (outputs,)
  return shapes


def read(tmp_path, shapes):
  rng = np.random.default_rng(0)
  arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
  opened = Arrays(shapes, arrays.__getitem__)
  return arrays, yamnet.read(tmp_path / "yamnet.tflite", opened, opened.read)


def test_every_array_gets_its_name_and_its_order_of_axes(tmp_path):
  arrays, (found, others) = read(tmp_path, published_shapes())
  assert others == ["mel_spectrogram"] and len(found) == 2 * LAYERS
  sound = {name.removeprefix("params/sound/"): x for name, x in found.items()}
  named = {name.split(";")[-2 if ";" in name else 0]: x for name, x in arrays.items()}
  layer = "tower0/network/layer"
  np.testing.assert_array_equal(sound["stem/kernel"][1, 2, 0, 7], named[f"{layer}1/conv/Conv2D"][7, 1, 2, 0])
  depthwise = named[f"{layer}8/sepconv/depthwise"]
  np.testing.assert_array_equal(sound["block3_depthwise/kernel"][2, 0, 0, 9], depthwise[0, 2, 0, 9])
  pointwise = named[f"{layer}9/conv/Conv2D"]
  np.testing.assert_array_equal(sound["block3_pointwise/kernel"][0, 0, 5, 9], pointwise[9, 0, 0, 5])
  bias = arrays[f"{layer}9/conv/BatchNorm/FusedBatchNormV3"]
  np.testing.assert_array_equal(sound["block3_pointwise/bias"], bias)


def test_a_file_that_lacks_a_layer_is_refused(tmp_path):
  shapes = published_shapes()
  del shapes["tower0/network/layer9/conv/Conv2D"]
  shapes["tower0/network/layer9/conv/BatchNorm/FusedBatchNormV3"] = (255,)
  with pytest.raises(WeightsError, match=r"does not fit YAMNet: missing tower0/network/layer9/conv; .*255,.*256,"):
    read(tmp_path, shapes)


def test_quantised_numbers_have_a_scale_for_all_or_for_each_channel():
  integers = np.array([[1, 2], [3, -4]], np.int8)
  scales, zeros = np.array([0.5, 2], np.float32), np.array([0, 0])
  np.testing.assert_array_equal(tflite_file.dequantised(integers, scales, zeros, 1), [[0.5, 4], [1.5, -8]])
  np.testing.assert_array_equal(tflite_file.dequantised(integers, scales, zeros, 0), [[0.5, 1], [6, -8]])
  np.testing.assert_array_equal(tflite_file.dequantised(integers, scales[:1], zeros[:1] + 1, 0), [[0, 0.5], [1, -2.5]])
  assert tflite_file.dequantised(integers, scales[:0], zeros[:0], 0) is integers


def test_a_damaged_file_and_a_missing_interpreter_are_one_line(tmp_path, monkeypatch):
  path = tmp_path / "x.tflite"
  path.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(100))
  if "ai_edge_litert" in sys.modules or pytest.importorskip("ai_edge_litert"):
    with pytest.raises(WeightsError, match=r"x\.tflite: not a readable TFLite file \([^\n]*\)$"):
      convert.read(path)
  monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
  with pytest.raises(WeightsError, match=r"x\.tflite: needs the package ai-edge-litert, pip install"):
    convert.read(path)


@needs_file
def test_the_published_file_against_its_interpreter():
  """The interpreter computes in 8-bit integers, so its activations are off by up to a percent of their range."""
  interpreter = pytest.importorskip("ai_edge_litert.interpreter")
  converted = convert.read(FILE)
  assert converted.kind == "YAMNet" and len(converted.arrays) == 2 * LAYERS
  reference = interpreter.Interpreter(
    str(FILE),
    experimental_preserve_all_tensors=True,
    experimental_op_resolver_type=interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
  )
  reference.allocate_tensors()
  times = np.arange(15_600) / 16_000
  waveform = 0.1 * np.sin(2 * np.pi * (300 + 900 * times) * times) * (1 + np.sin(2 * np.pi * 4 * times))
  waveform += 0.01 * np.random.default_rng(0).normal(size=len(times))
  reference.set_tensor(0, waveform.astype(np.float32))
  reference.invoke()
  details = reference.get_tensor_details()
  named = {detail["name"]: detail for detail in details}
  np.testing.assert_allclose(mel_matrix(), reference.get_tensor(named["mel_spectrogram"]["index"]).T, atol=1e-6)
  log_mel = reference.get_tensor(named["log_mel_spectrogram"]["index"])
  (last,) = [x for x in details if x["name"].startswith("tower0/network/layer25/conv/Relu6")]
  scale, zero = last["quantization"]
  expected = (reference.get_tensor(last["index"]).astype(np.float32) - zero) * scale
  variables = {"params": unflatten(converted.arrays)["params"]["sound"]}
  found = quick_jit(lambda x: YAMNet().apply(variables, x, method="encode"))(jnp.asarray(log_mel[None]))
  np.testing.assert_allclose(found[0], expected[0].mean((0, 1)), atol=0.06)
  assert np.corrcoef(found[0], expected[0].mean((0, 1)))[0, 1] > 0.99
