import dataclasses

import numpy as np
import onnx
import pytest

from model_code import machine
from model_code.engines import int8_engines, pruned_engines, quantisation, registry
from model_code.engines.cache import cache_folder
from model_code.engines.sidecar import EngineSidecar
from model_code.errors import EngineError
from model_code.export import pruning

INT8 = ("onnxruntime-int8", "openvino-int8")
PRUNED = ("onnxruntime-pruned", "openvino-pruned")


@pytest.mark.parametrize("name", INT8 + PRUNED)
def test_without_calibration_windows_nothing_is_built(name, source, tmp_path):
    bare = dataclasses.replace(source, calibration=None)
    with pytest.raises(EngineError, match="no calibration windows"):
        registry.ENGINES[name].build(bare, tmp_path / "out")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((8, 64, 16), np.nan, np.float32), "NaN or infinity"),
        (np.zeros((8, 64, 16), np.float64), "expected float32"),
        (np.array([{}], object), "cannot be read"),
    ],
    ids=["nan", "float64", "pickle"],
)
def test_invalid_calibration_windows_are_refused(array, message, source, tmp_path):
    path = tmp_path / "bad.npy"
    np.save(path, array)
    with pytest.raises(EngineError, match=message) as caught:
        dataclasses.replace(source, calibration=path).windows()
    assert str(path) in caught.value.where


@pytest.mark.parametrize(("worst", "what"), [(1.0, "all products"), (-1.0, "feed-forward")])
def test_products_outside_the_feed_forward_are_int8_only_if_accurate(
    worst, what, source, tmp_path, monkeypatch
):
    monkeypatch.setattr(quantisation, "MAX_ABS_DP", worst)
    out = tmp_path / "int8.onnx"
    found = quantisation.quantise(source.onnx, source.windows(), out, reduce_range=True)
    assert found.what == what
    graph = onnx.load(out)
    weights = [tensor for tensor in graph.graph.initializer if tensor.data_type == 3]  # INT8
    matrices = [onnx.numpy_helper.to_array(tensor) for tensor in weights if len(tensor.dims) == 2]
    assert len(matrices) == len(found.products) == (4 if what == "feed-forward" else 9)
    assert max(np.abs(matrix).max() for matrix in matrices) <= 64  # 7 bits do not saturate


def test_an_int8_sidecar_records_the_recipe(source, tmp_path):
    registry.ENGINES["onnxruntime-int8"].build(source, tmp_path)
    recipe = EngineSidecar.load(tmp_path).recipe
    assert recipe["calibration_windows"] == 64
    assert recipe["weight_bits"] == (7 if quantisation.needs_reduced_range() else 8)
    worst = recipe["max_abs_dp"]
    assert isinstance(worst, float)
    assert worst < 0.05


def test_reduced_range_depends_on_the_processor(monkeypatch):
    for flags, reduced in [({"avx2"}, True), ({"avx2", "avx512_vnni"}, False)]:
        monkeypatch.setattr(machine, "flags", lambda found=flags: found)
        assert quantisation.needs_reduced_range() is reduced


def test_an_int8_graph_computed_in_fp32_is_refused(source, tmp_path, monkeypatch):
    monkeypatch.setattr(int8_engines, "matrix_precisions", lambda _compiled: {"a": "f32"})
    with pytest.raises(EngineError, match="matrix products of an int8 graph in f32"):
        registry.ENGINES["openvino-int8"].build(source, tmp_path)


def test_pruned_engines_share_one_pruning_and_record_its_error(source, tmp_path, monkeypatch):
    for name in PRUNED:
        sidecar = registry.ENGINES[name].build(source, tmp_path / name)
        assert sidecar.recipe["feed_forward"] == 8  # of 32 units, each there four times
        assert sidecar.recipe["within_budget"] == "true"
        assert 0 < float(sidecar.recipe["held_out_max_abs_dp"]) <= pruning.MAX_ABS_DP
        assert sidecar.flops < registry_flops(source)
    monkeypatch.setattr(pruning, "choose", lambda *_: pytest.fail("pruned again"))
    pruned_engines.narrow_network(source)


def test_a_damaged_cache_is_rebuilt(source):
    narrow, made = pruned_engines.narrow_network(source)
    for path in cache_folder("pruned").glob("*.pt"):
        path.write_bytes(b"torn")
    again, _ = pruned_engines.narrow_network(source)
    assert again.spec == narrow.spec
    assert made.recipe["feed_forward"] == narrow.spec.feed_forward


def registry_flops(source):
    from model_code.models import network

    return network.flops_per_window(network.load(source.model).spec)
