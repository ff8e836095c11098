"""The names that builder and engine use exist in the pinned TensorRT 10 and in 11.

`tensorrt_names/` contains the names of NVIDIA's bindings of both, recorded by `tensorrt_names.py`.
"""

import ast
import inspect
import json
import tomllib
from pathlib import Path

import pytest

from model_code.engines import tensorrt_builder, tensorrt_engine, tensorrt_inspector
from model_code.engines.tensorrt_graph import RECIPES

ROOT = Path(__file__).parents[3]
RECORDS = {
    path.stem: {owner: set(names) for owner, names in json.loads(path.read_text()).items()}
    for path in sorted((Path(__file__).parent / "tensorrt_names").glob("*.json"))
}
# how the code calls what the API returns
OWNERS = {
    "trt": "tensorrt",
    "BuilderFlag": "BuilderFlag",
    "MemoryPoolType": "MemoryPoolType",
    "LayerType": "LayerType",
    "NetworkDefinitionCreationFlag": "NetworkDefinitionCreationFlag",
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "optimisation": "IOptimizationProfile",
    "layer": "ILayer",
    "inspector": "EngineInspector",
    "ProfilingVerbosity": "ProfilingVerbosity",
    "LayerInformationFormat": "LayerInformationFormat",
    "_runtime": "Runtime",
    "engine": "ICudaEngine",
    "_engine": "ICudaEngine",
    "_context": "IExecutionContext",
}
OURS = {("network", "load"), ("network", "flops_per_window")}  # model_code.models.network


def used(module) -> set[tuple[str, str]]:
    """(object, public name) of every attribute read from one of `OWNERS`."""
    found = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Attribute):
            owner = node.value
            name = getattr(owner, "attr", None) or getattr(owner, "id", None)
            if name in OWNERS and not node.attr.startswith("__"):
                found.add((name, node.attr))
    return found - OURS


USED = used(tensorrt_builder) | used(tensorrt_engine) | used(tensorrt_inspector)


def missing(record: dict[str, set[str]], names: set[tuple[str, str]]) -> set[tuple[str, str]]:
    return {(owner, name) for owner, name in names if name not in record[OWNERS[owner]]}


def test_the_records_are_of_the_pinned_10_and_of_11():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (pinned,) = wanted["project"]["optional-dependencies"]["gpu"]
    ten, eleven = RECORDS
    assert pinned == f"tensorrt=={ten}"
    assert eleven.startswith("11.")
    assert "STRONGLY_TYPED" in RECORDS[ten]["NetworkDefinitionCreationFlag"]  # required by 10.x
    # 11 removed weak typing: records that do not differ in it would be of one version
    removed = {
        ("BuilderFlag", "FP16"),
        ("BuilderFlag", "BF16"),
        ("BuilderFlag", "INT8"),
        ("BuilderFlag", "OBEY_PRECISION_CONSTRAINTS"),
        ("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH"),
        ("builder", "platform_has_fast_fp16"),
        ("config", "int8_calibrator"),
        ("_engine", "device_memory_size"),
    }
    assert missing(RECORDS[ten], removed) == set()
    assert missing(RECORDS[eleven], removed) == removed


@pytest.mark.parametrize("version", RECORDS)
def test_every_name_used_exists(version: str):
    assert missing(RECORDS[version], USED) == set()


def test_the_check_finds_the_names_used():
    """A renamed variable in the builder would otherwise empty the check unnoticed."""
    assert {owner for owner, _ in USED} | {"NetworkDefinitionCreationFlag"} == set(OWNERS)
    assert ("builder", "build_serialized_network") in USED
    assert ("_context", "execute_async_v3") in USED
    assert len(USED) >= 35


@pytest.mark.parametrize("version", RECORDS)
def test_the_recipes_types_exist(version: str):
    assert {recipe.layer_type for recipe in RECIPES.values()} <= RECORDS[version]["DataType"]


def test_a_name_missing_in_11_is_detected():
    ten, eleven = RECORDS.values()
    weak = ast.parse("config.set_flag(trt.BuilderFlag.FP16)")
    read = {
        (node.value.attr, node.attr)
        for node in ast.walk(weak)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute)
    }
    assert read == {("BuilderFlag", "FP16")}
    assert missing(ten, read) == set()
    assert missing(eleven, read) == read


def test_tensorrt_rtx_shares_the_api():
    """The tests run the builder with TensorRT-RTX, so its API must be the same."""
    rtx = pytest.importorskip("tensorrt_rtx")
    owners = {"tensorrt": rtx} | {
        name: getattr(rtx, name) for name in set(OWNERS.values()) if name != "tensorrt"
    }
    assert {(o, n) for o, n in USED if not hasattr(owners[OWNERS[o]], n)} == set()
