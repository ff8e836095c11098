import itertools
import shutil

import numpy as np
import pytest
import torch

from model_code.benchmark.gate import judge_run
from model_code.benchmark.goals import load_goals
from model_code.engines import pruned_engines, registry
from model_code.engines.openvino_engine import (
    compile_graph,
    matrix_precisions,
    require_precision,
)
from model_code.engines.sidecar import EngineSidecar
from model_code.errors import EngineError, EngineUnavailableError, IntegrityError, StorageError
from model_code.machine import physical_cores
from model_code.models.probability import probability
from model_code.repository.triton_config import SERVABLE
from model_code.settings import ENGINE_NAMES, INPUT_NAME, OUTPUT_NAME
from tests.support.benchmark import benchmark_run

# torch-compile takes minutes to build: see test_torch_compile.py
HERE = [
    name
    for name, reason in registry.available().items()
    if reason is None and name != "torch-compile"
]
ABSENT = [name for name, reason in registry.available().items() if reason is not None]
TOLERANCE = {"fp32": 1e-5, "bf16": 0.1, "fp16": 0.02, "int8": 0.05}
UNPRUNED = [name for name in HERE if "pruned" not in name]
PRUNED = [name for name in HERE if "pruned" in name]


def tolerance(name: str) -> float:
    return TOLERANCE[registry.ENGINES[name].precision]


NO_BF16 = "CPU has no native BF16 (AVX512_BF16 or AMX)"


@pytest.fixture(scope="module")
def folders(source, tmp_path_factory):
    root = tmp_path_factory.mktemp("engines")
    for name in HERE:
        registry.ENGINES[name].build(source, root / name)
    return root


def test_the_registry_lists_the_named_engines_in_order():
    assert tuple(registry.ENGINES) == ENGINE_NAMES
    assert {"torch-fp32", "onnxruntime-fp32", "openvino-fp32"} <= set(HERE)


@pytest.mark.parametrize("name", ABSENT)
def test_an_unavailable_engine_gives_the_reason_and_refuses_to_build(name, source, tmp_path):
    reason = registry.available()[name]
    assert reason
    with pytest.raises(EngineUnavailableError, match=name) as caught:
        registry.ENGINES[name].build(source, tmp_path)
    assert reason in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", UNPRUNED)
def test_logits_match_eager_fp32(name, folders, x_BTF, expected_BC):
    engine = registry.ENGINES[name]
    answer_BC = engine.load(folders / name).predict(x_BTF)
    assert answer_BC.dtype == np.float32
    np.testing.assert_allclose(answer_BC, expected_BC, atol=tolerance(name))


@pytest.mark.parametrize("name", PRUNED)
def test_logits_of_a_pruned_engine_match_the_pruned_network(
    name, folders, source, x_BTF, expected_BC
):
    narrow, _ = pruned_engines.narrow_network(source)
    with torch.inference_mode():
        narrow_BC = narrow(torch.from_numpy(x_BTF)).numpy()
    answer_BC = registry.ENGINES[name].load(folders / name).predict(x_BTF)
    assert answer_BC.dtype == np.float32
    np.testing.assert_allclose(answer_BC, narrow_BC, atol=tolerance(name))
    assert 1e-4 < np.abs(narrow_BC - expected_BC).max() < 0.02  # another network, a close one


def test_fp32_engines_whole_and_pruned_pass_the_quality_goals_of_the_gate(folders, x_NTF):
    names = ["torch-fp32", *(name for name in SERVABLE if name in HERE)]
    names = [name for name in names if registry.ENGINES[name].precision == "fp32"]
    answers = {}
    for name in names:
        predictor = registry.ENGINES[name].load(folders / name)
        logits = [predictor.predict(x_BTF) for x_BTF in np.split(x_NTF, 8)]
        answers[name] = probability(np.concatenate(logits))
    p_N = answers["torch-fp32"]
    assert p_N.std() > 0.15, "identical predictions would match anything"
    label_N = (np.random.default_rng(8).uniform(size=len(p_N)) < p_N).astype(np.int8)
    run = benchmark_run(
        label_N,
        answers,
        dict.fromkeys(names, np.ones(100)),
        boosting_N=np.full(len(label_N), label_N.mean()),
    )
    verdicts = judge_run(run, load_goals(), simulated=False)
    assert verdicts.keys() >= {"onnxruntime-fp32", "onnxruntime-pruned", "openvino-pruned"}
    for name, verdict in verdicts.items():
        assert [row.name for row in verdict.rows if row.passed is False] == [], name


@pytest.mark.parametrize("name", HERE)
def test_logits_do_not_depend_on_the_batch(name, folders, x_BTF):
    predictor = registry.ENGINES[name].load(folders / name)
    together_BC = predictor.predict(x_BTF)
    alone_BC = np.concatenate([predictor.predict(x_BTF[i : i + 1]) for i in range(len(x_BTF))])
    np.testing.assert_allclose(alone_BC, together_BC, atol=1e-5)


@pytest.mark.parametrize("name", HERE)
def test_logits_are_not_overwritten_by_the_next_call(name, folders, x_BTF):
    predictor = registry.ENGINES[name].load(folders / name)
    first_BC = predictor.predict(x_BTF[:1])
    kept_BC = first_BC.copy()
    predictor.predict(x_BTF[1:2])
    np.testing.assert_array_equal(first_BC, kept_BC)


@pytest.mark.parametrize("name", HERE)
def test_the_sidecar_describes_the_engine(name, folders):
    engine, sidecar = registry.ENGINES[name], EngineSidecar.load(folders / name)
    assert (sidecar.engine, sidecar.precision) == (name, engine.precision)
    assert sidecar.parity_error <= (tolerance(name) if name in UNPRUNED else 0.1)
    assert [tensor.name for tensor in sidecar.inputs + sidecar.outputs] == [INPUT_NAME, OUTPUT_NAME]
    assert sidecar.threads == physical_cores()
    assert sidecar.max_batch == 64
    assert sidecar.flops > 0


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((1, 64, 15), np.float32),
        np.zeros((64, 16), np.float32),
        np.zeros((0, 64, 16), np.float32),
        np.zeros((1, 64, 16), np.float64),
    ],
    ids=["features", "no batch", "empty", "float64"],
)
def test_windows_of_another_shape_or_type_are_refused(name, folders, bad):
    with pytest.raises(EngineError, match="windows"):
        registry.ENGINES[name].load(folders / name).predict(bad)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", HERE)
def test_windows_with_nan_or_infinity_are_refused_alone_and_in_a_batch(name, folders, x_BTF, value):
    predictor = registry.ENGINES[name].load(folders / name)
    for size, step in itertools.product((1, 3), (0, -1)):
        bad_BTF = x_BTF[:size].copy()
        bad_BTF[-1, step, 5] = value
        with pytest.raises(EngineError, match="NaN or infinity") as caught:
            predictor.predict(bad_BTF)
        assert caught.value.where == f"window {size - 1}, step {step % 64}, feature 5"
    huge_BTF = np.full_like(x_BTF[:1], 1e38)  # finite, but its squares are not
    assert predictor.predict(huge_BTF).shape == (1, 2)


def test_one_engine_does_not_open_anothers_folder(folders):
    with pytest.raises(EngineError, match="contains engine torch-fp32, not onnxruntime-fp32"):
        registry.ENGINES["onnxruntime-fp32"].load(folders / "torch-fp32")


@pytest.mark.parametrize("name", HERE)
def test_a_tampered_engine_is_not_opened(name, folders, tmp_path):
    shutil.copytree(folders / name, tmp_path, dirs_exist_ok=True)
    sidecar = EngineSidecar.load(tmp_path)
    with (tmp_path / sidecar.file).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(IntegrityError):
        registry.ENGINES[name].load(tmp_path)


@pytest.mark.parametrize("name", ["onnxruntime-fp32", "openvino-fp32"])
def test_a_broken_graph_is_refused(name, source, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(source.onnx.read_bytes()[:2000])
    bad = type(source)(source.model, broken, source.torchscript)
    with pytest.raises(EngineError, match="refuses the graph"):
        registry.ENGINES[name].build(bad, tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_a_storage_error(source, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        registry.ENGINES["torch-fp32"].build(source, tmp_path / "file" / "out")


def test_an_engine_that_outputs_nan_is_not_built(source, tmp_path, monkeypatch):
    engine = registry.ENGINES["onnxruntime-fp32"]

    class Broken:
        def predict(self, x_BTF):
            return np.full((len(x_BTF), 2), np.nan, np.float32)

    monkeypatch.setattr(engine, "_open", lambda _path, _threads: Broken())
    with pytest.raises(EngineError, match="NaN or infinity"):
        engine.build(source, tmp_path)


def test_openvino_never_falls_back_silently(source):
    assert set(matrix_precisions(compile_graph(source.onnx, "f32", 1)).values()) == {"f32"}
    compiled = compile_graph(source.onnx, "bf16", 1)
    if "openvino-bf16" in HERE:
        require_precision(compiled, "bf16", source.onnx)
    else:
        with pytest.raises(EngineError, match="computes matrix products in f32 instead of bf16"):
            require_precision(compiled, "bf16", source.onnx)


def test_bf16_engines_are_available_only_with_native_bf16(monkeypatch):
    amp = registry.ENGINES["torch-amp"]
    if amp.device == "cuda":
        pytest.skip("autocast is FP16 on this machine's GPU")
    for capabilities, reason in [({}, NO_BF16), ({"avx512_bf16": True}, None)]:
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda found=capabilities: found)
        assert amp.availability() == reason


def test_mixed_precision_is_close_to_fp32(source, tmp_path, monkeypatch, x_BTF, expected_BC):
    # slow but correct with emulated BF16
    amp = registry.ENGINES["torch-amp"]
    monkeypatch.setattr(type(amp), "availability", lambda _self: None)
    sidecar = amp.build(source, tmp_path)
    answer_BC = amp.load(tmp_path).predict(x_BTF)
    assert sidecar.parity_error > 1e-6  # it does not compute in FP32
    np.testing.assert_allclose(answer_BC, expected_BC, atol=0.1)


def test_export_works_after_the_reference_engine_was_opened(folders):
    registry.ENGINES["torch-fp32"].load(folders / "torch-fp32")
    assert torch.backends.cudnn.allow_tf32 is False  # reading it raises where settings are mixed
