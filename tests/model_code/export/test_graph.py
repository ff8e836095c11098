"""TorchScript and ONNX: the same network, any batch, the contract."""

import copy
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from model_code.errors import ExportError
from model_code.export import graph
from model_code.models import network
from model_code.models.blend import Blend
from model_code.settings import INPUT_NAME, ONNX_OPSET, OUTPUT_NAME, BlendSpec, NetworkSpec

TINY = NetworkSpec(d_model=16, heads=2, layers=1, feed_forward=32)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    model = network.FinancialPredictor(TINY).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # equal initial weights could be merged
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.fit_standardisation(np.random.default_rng(3).normal(1, 2, (500, 16)).astype(np.float32))
    return model


@pytest.fixture(scope="module", name="x_BTF")
def windows():
    return np.random.default_rng(4).normal(1, 2, (9, 64, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def exported(model, x_BTF, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    return path, graph.export_onnx(model, x_BTF, path)


def test_onnx_keeps_the_contract_at_any_batch(exported, model, x_BTF):
    path, report = exported
    assert report.format == "onnx"
    assert report.opset == ONNX_OPSET >= 17
    assert report.parity_error <= graph.PARITY_LIMIT
    assert report.file_bytes == path.stat().st_size
    proto = onnx.load(path).graph
    for value, name in ((proto.input[0], INPUT_NAME), (proto.output[0], OUTPUT_NAME)):
        assert value.name == name
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]  # no external data

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 3, 100):
        many_BTF = np.resize(x_BTF, (batch, 64, 16))
        with torch.inference_mode():
            expected_BC = model(torch.from_numpy(many_BTF)).numpy()
        found_BC = session.run([OUTPUT_NAME], {INPUT_NAME: many_BTF})[0]
        np.testing.assert_allclose(found_BC, expected_BC, atol=1e-5)


def altered(path, change, target):
    graph = onnx.load(path)
    change(graph)
    onnx.save(graph, target)
    return target


def freeze_batch(graph):
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1


def rename_input(graph):
    graph.graph.input[0].name = "x"
    for node in graph.graph.node:
        for index, name in enumerate(node.input):
            if name == INPUT_NAME:
                node.input[index] = "x"


def older_opset(graph):
    graph.opset_import[0].version = 17


def no_nodes(graph):
    del graph.graph.node[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (freeze_batch, "input: expected float32"),
        (rename_input, "input: expected float32"),
        (older_opset, "opset|checker"),
        (no_nodes, "checker"),
    ],
)
def test_a_graph_off_the_contract_is_refused(exported, tmp_path, change, message):
    path = altered(exported[0], change, tmp_path / "bad.onnx")
    with pytest.raises(ExportError, match=message):
        graph.check_onnx(path)


def test_weights_in_another_file_are_refused(exported, tmp_path):
    path = tmp_path / "split.onnx"
    onnx.save(
        onnx.load(exported[0]),
        path,
        save_as_external_data=True,
        location="weights",
        size_threshold=0,
    )
    with pytest.raises(ExportError, match="another file"):
        graph.check_onnx(path)


def test_torchscript_is_the_same_network_at_any_batch(model, x_BTF, tmp_path):
    report = graph.export_torchscript(model, x_BTF, tmp_path / "model.ts")
    assert report.parity_error <= graph.PARITY_LIMIT
    assert report.opset is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch deprecates TorchScript
        restored = torch.jit.load(tmp_path / "model.ts")
    with torch.inference_mode():
        for batch in (1, 5, 9):
            x = torch.from_numpy(x_BTF[:batch])
            torch.testing.assert_close(restored(x), model(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("function", "exporter", "shift", "sound"),
    [
        (graph.export_onnx, "onnx.export", 3e-5, False),
        (graph.export_torchscript, "jit.trace", 3e-5, False),
        (graph.export_torchscript, "jit.trace", 3e-6, True),
    ],
)
def test_a_graph_whose_weight_differs_is_refused_above_the_limit_and_not_written(
    model, x_BTF, tmp_path, monkeypatch, function, exporter, shift, sound
):
    module, name = exporter.split(".")
    export = getattr(getattr(torch, module), name)

    def export_altered(network, *arguments, **options):
        altered = copy.deepcopy(network)
        with torch.no_grad():
            altered.head.bias[0] += shift  # which moves a logit by as much
        return export(altered, *arguments, **options)

    monkeypatch.setattr(f"torch.{exporter}", export_altered)
    path = tmp_path / "model"
    if sound:
        assert 1e-6 < function(model, x_BTF, path).parity_error <= graph.PARITY_LIMIT
        return
    with pytest.raises(ExportError, match=r"differs from torch by [23]\S*e-05 \(limit 1e-05\)"):
        function(model, x_BTF, path)
    assert list(tmp_path.iterdir()) == []


def test_outputs_of_nan_or_another_shape_are_refused(model, x_BTF, tmp_path):
    path = tmp_path / "any"
    for answer in (
        lambda x_BTF: np.full((len(x_BTF), 2), np.nan, np.float32),
        lambda _: np.zeros((1, 3), np.float32),
    ):
        with pytest.raises(ExportError, match="does not match the network"):
            graph._parity(model, answer, x_BTF, path)


@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        ((1, 64, 16), np.float32, "2 or more"),
        ((2, 32, 16), np.float32, "expected"),
        ((2, 64), np.float32, "expected"),
        ((2, 64, 16), np.float64, "float32"),
    ],
)
@pytest.mark.parametrize("function", [graph.export_onnx, graph.export_torchscript])
def test_an_invalid_example_is_refused(model, tmp_path, function, shape, kind, message):
    with pytest.raises(ExportError, match=message):
        function(model, np.zeros(shape, kind), tmp_path / "model")


def test_a_network_in_training_mode_is_refused(x_BTF, tmp_path):
    model = network.FinancialPredictor(TINY)
    with pytest.raises(ExportError, match="training mode"):
        graph.export_onnx(model, x_BTF, tmp_path / "model")


class OddAnswers:
    """The network's own logits, `shift` added for some windows of the example."""

    def __init__(self, model, x_BTF, odd, shift):
        self.model, self.odd_WTF, self.shift = model, x_BTF[odd], shift

    def __call__(self, x_BTF):
        with torch.inference_mode():
            logits_BC = self.model(torch.from_numpy(x_BTF)).numpy().copy()
        same_BW = (x_BTF[:, None] == self.odd_WTF[None]).all(axis=(2, 3))
        logits_BC[same_BW.any(axis=1)] += self.shift
        return logits_BC


@pytest.mark.parametrize(
    ("levels", "odd", "shift", "passes"),
    [
        (3, [0], 0.05, True),  # also alone and among seven
        (3, [5], 0.05, True),
        (3, [5, 6], 0.05, False),
        (3, [5], 1.5, False),
        (3, [5], np.nan, False),
        (0, [5], 0.05, False),  # no trees yet: a perceptron is continuous
    ],
)
def test_with_trees_one_window_may_take_another_branch(x_BTF, tmp_path, levels, odd, shift, passes):
    torch.manual_seed(1)
    model = network.build(BlendSpec(hidden=8)).eval()
    assert isinstance(model, Blend)
    model.trees.levels = levels
    odd_answers = OddAnswers(model, x_BTF, odd, np.float32(shift))
    branched = graph._branched(model)
    assert branched == (levels > 0)
    if passes:
        found = graph._parity(model, odd_answers, x_BTF, tmp_path / "any", branched)
        assert found == pytest.approx(shift, rel=1e-4)
        return
    with pytest.raises(ExportError, match=f"on {len(odd)} windows of the example"):
        graph._parity(model, odd_answers, x_BTF, tmp_path / "any", branched)
