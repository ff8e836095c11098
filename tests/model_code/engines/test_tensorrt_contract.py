"""The names that builder and engine use exist in TensorRT 10.12 and in 11.

`API` lists, by object, the names of the Python API that the code relies on: those of NVIDIA's API
reference which its page "Removed Python APIs and Replacements" (10.x to 11.x) does not take away,
checked against the bindings of TensorRT-RTX, which share them. `REMOVED` is from that page.
"""

import ast
import inspect

import pytest

from model_code.engines import tensorrt_builder, tensorrt_engine

API = {
    "trt": {
        "Builder",
        "BuilderFlag",
        "ILogger",
        "LayerType",
        "Logger",
        "MemoryPoolType",
        "NetworkDefinitionCreationFlag",
        "OnnxParser",
        "Runtime",
        "__version__",
    },
    "BuilderFlag": {"SPARSE_WEIGHTS", "TF32", "__members__"},
    "MemoryPoolType": {"WORKSPACE"},
    "LayerType": {"CONSTANT", "CAST"},
    "builder": {
        "build_serialized_network",
        "create_builder_config",
        "create_network",
        "create_optimization_profile",
    },
    "config": {
        "add_optimization_profile",
        "clear_flag",
        "create_timing_cache",
        "get_flag",
        "get_timing_cache",
        "set_flag",
        "set_memory_pool_limit",
        "set_timing_cache",
    },
    "network": {"get_layer", "num_layers"},
    "parser": {"get_error", "num_errors", "parse"},
    "optimisation": {"set_shape"},
    "layer": {"get_output", "type"},
    "_runtime": {"deserialize_cuda_engine"},
    "_engine": {"create_execution_context"},
    "_context": {"execute_async_v3", "set_input_shape", "set_tensor_address"},
}
REMOVED = {
    "FP16",
    "BF16",
    "INT8",
    "OBEY_PRECISION_CONSTRAINTS",
    "EXPLICIT_BATCH",
    "int8_calibrator",
    "platform_has_fast_fp16",
    "device_memory_size",
}
CLASSES = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "optimisation": "IOptimizationProfile",
    "layer": "ILayer",
    "_runtime": "Runtime",
    "_engine": "ICudaEngine",
    "_context": "IExecutionContext",
}


def used(module) -> set[tuple[str, str]]:
    """(object, name) of every attribute read from an object of `API`."""
    found = set()
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Attribute):
            owner = node.value
            name = getattr(owner, "attr", None) or getattr(owner, "id", None)
            if name in API and not (
                name == "network" and node.attr in ("load", "flops_per_window")
            ):
                found.add((name, node.attr))
    return found


USED = used(tensorrt_builder) | used(tensorrt_engine)


def test_only_names_that_both_majors_have_are_used():
    assert {(name, attribute) for name, attribute in USED if attribute not in API[name]} == set()
    assert not {attribute for _, attribute in USED} & REMOVED


def test_the_list_holds_nothing_that_is_not_used():
    listed = {(name, attribute) for name, names in API.items() for attribute in names}
    assert listed - USED == set()


def test_the_shared_api_really_has_them():
    rtx = pytest.importorskip("tensorrt_rtx")
    missing = set()
    for name, attribute in USED:
        owner = rtx if name == "trt" else getattr(rtx, CLASSES.get(name, name))
        if not hasattr(owner, attribute):
            missing.add((name, attribute))
    assert missing == set()


def test_the_parsed_types_have_the_names_the_recipes_ask_for():
    rtx = pytest.importorskip("tensorrt_rtx")
    from model_code.engines.tensorrt_graph import RECIPES

    assert {recipe.layer_type for recipe in RECIPES.values()} <= set(rtx.DataType.__members__)
