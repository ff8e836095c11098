"""Record the names of TensorRT's Python API from a wheel of its bindings.

    pip download --no-deps tensorrt-cu12-bindings==11.4.0.106   # 10.13.3.9: tensorrt-cu13-bindings
    python tests/model_code/engines/tensorrt_names.py tensorrt_cu12_bindings-11.4.0.106-cp311-*.whl

The bindings are NVIDIA's own; the libraries behind them (gigabytes, of use with a GPU only) are
replaced by empty ones, made with `cc`: classes and their names are there as soon as the module is
imported, and nothing is ever called. The interpreter must be the one that the wheel is for.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

RECORDS = Path(__file__).parent / "tensorrt_names"
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
# read at import: a version, and registries that only matter when used
FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
CLASSES = (
    "Builder",
    "BuilderFlag",
    "DataType",
    "EngineInspector",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "ILayer",
    "INetworkDefinition",
    "IOptimizationProfile",
    "LayerInformationFormat",
    "LayerType",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ProfilingVerbosity",
    "Runtime",
)


def record(wheel: Path) -> Path:
    """Write the wheel's names to `tensorrt_names/VERSION.json`."""
    found = re.search(r"-(\d+(\.\d+)+)-cp", wheel.name)
    if found is None:
        raise SystemExit(f"{wheel.name} is no wheel of TensorRT's bindings")
    version = found[1]
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as packed:
            (inside,) = (name for name in packed.namelist() if name.endswith("/tensorrt.so"))
            module = Path(packed.extract(inside, folder))
        source = Path(folder) / "empty.c"
        source.write_text("\n".join(f"void *{name}(void) {{ return 0; }}" for name in FUNCTIONS))
        for library in LIBRARIES:
            name = f"lib{library}.so.{version.split('.')[0]}"
            subprocess.run(
                ["cc", "-shared", str(source), f"-Wl,-soname,{name}", "-o", f"{folder}/{name}"],
                check=True,
            )
        listed = subprocess.run(
            [sys.executable, __file__, "--list", str(module)],
            env=os.environ | {"LD_LIBRARY_PATH": folder},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    RECORDS.mkdir(exist_ok=True)
    path = RECORDS / f"{version}.json"
    path.write_text(json.dumps(json.loads(listed), indent=1, sort_keys=True) + "\n")
    return path


def names(module: Path) -> dict[str, list[str]]:
    """Public names of the module and of the classes that an engine is built with."""
    spec = importlib.util.spec_from_file_location("tensorrt", module)
    assert spec
    assert spec.loader
    trt = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(trt)
    owners = {"tensorrt": trt} | {name: getattr(trt, name) for name in CLASSES}
    return {
        name: sorted(one for one in dir(owner) if not one.startswith("_"))
        for name, owner in owners.items()
    }


if __name__ == "__main__":
    if sys.argv[1] == "--list":
        print(json.dumps(names(Path(sys.argv[2]))))  # noqa: T201
    else:
        print(record(Path(sys.argv[1])))  # noqa: T201
