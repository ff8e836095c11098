"""Types that a built TensorRT engine computes in, from its own layer information.

The parsed network says what was asked for. The builder fuses layers and chooses kernels afterwards,
so only the engine says what was built.

Source: NVIDIA, "TensorRT Developer Guide", Engine Inspector. It needs detailed profiling verbosity
at the build, and the shapes of a context where they are dynamic.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from model_code.errors import EngineError

PRODUCTS = ("Conv", "Gemm", "MatMul")
_SOURCE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
# as the inspector writes types, in the order to look for them
_TYPES = (
    ("BF16", ("bf16", "bfloat16")),
    ("HALF", ("fp16", "half", "float16")),
    ("FLOAT", ("fp32", "float")),
    ("INT8", ("int8",)),
    ("INT64", ("int64",)),
    ("INT32", ("int32",)),
    ("BOOL", ("bool",)),
)


@dataclass(frozen=True)
class BuiltLayer:
    """One layer of a built engine.

    Attributes:
        name: TensorRT's.
        nodes: names of the ONNX nodes fused into it.
        types: of its inputs, outputs and weights, as `tensorrt.DataType` names them.
        output: type of its first output; "OTHER" if it is unknown.
    """

    name: str
    nodes: frozenset[str]
    types: frozenset[str]
    output: str


def built_layers(trt: Any, engine: Any, context: Any) -> tuple[BuiltLayer, ...]:
    """All layers of an engine.

    Args:
        trt: the `tensorrt` module.
        engine: deserialised.
        context: of the engine, with the input's shape set.

    Raises:
        EngineError: the engine has no detailed layer information.
    """
    inspector = engine.create_engine_inspector()
    inspector.execution_context = context
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        layers = json.loads(text)["Layers"]
        found = tuple(_layer(layer) for layer in layers)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(
            "the built engine has no detailed layer information, so its precision is unproved",
            remedy="build it with ProfilingVerbosity.DETAILED",
        ) from error
    if not found:
        raise EngineError("the built engine reports no layer, so its precision is unproved")
    return found


def products_of(graph: onnx.ModelProto, *, without: Sequence[str] = ()) -> frozenset[str]:
    """Names of a typed graph's matrix products, but those of the operators `without`."""
    wanted = set(PRODUCTS) - set(without)
    return frozenset(node.name for node in graph.graph.node if node.op_type in wanted)


def require_types(
    layers: Sequence[BuiltLayer], products: frozenset[str], layer_type: str
) -> dict[str, int]:
    """Check that the engine's matrix products are computed in their type.

    Args:
        layers: `built_layers`.
        products: `products_of` the graph that the engine was built from.
        layer_type: HALF, BF16 or FLOAT. With FLOAT no layer may have a 16-bit type.

    Returns:
        Number of layers by the type of their first output, as {"HALF": 12}.

    Raises:
        EngineError: no product is found in the engine, or one has no tensor of the type.
    """
    with_products = [one for one in layers if one.nodes & products]
    if not with_products:
        raise EngineError(
            f"none of the {len(products)} matrix products is named in the built engine's "
            f"{len(layers)} layers, so its precision is unproved",
            remedy="read it with trtexec --dumpLayerInfo --profilingVerbosity=detailed",
        )
    if layer_type == "FLOAT":
        wrong = [one for one in layers if one.types & {"HALF", "BF16"}]
    else:
        wrong = [one for one in with_products if layer_type not in one.types]
    if wrong:
        named = "; ".join(
            f"{one.name} in {', '.join(sorted(one.types)) or 'an unknown type'}"
            for one in wrong[:3]
        )
        raise EngineError(
            f"{len(wrong)} layers of the built engine are not computed in {layer_type}: {named}",
            remedy="use an engine of another precision on this GPU",
        )
    return dict(Counter(one.output for one in layers))


def _layer(facts: Mapping[str, Any]) -> BuiltLayer:
    outputs = [_type(tensor["Format/Datatype"]) for tensor in facts.get("Outputs", ())]
    types = outputs + [_type(tensor["Format/Datatype"]) for tensor in facts.get("Inputs", ())]
    types += [_type(facts[part]["Type"]) for part in ("Weights", "Bias") if facts.get(part)]
    return BuiltLayer(
        name=str(facts["Name"]),
        nodes=frozenset(_SOURCE.findall(str(facts.get("Metadata", "")))),
        types=frozenset(types) - {"OTHER"},
        output=outputs[0] if outputs else "OTHER",
    )


def _type(written: str) -> str:
    small = written.lower()
    return next((name for name, words in _TYPES if any(word in small for word in words)), "OTHER")
