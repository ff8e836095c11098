"""The serving contract of the model, engine names and registry aliases."""

MODEL_NAME = "financial_predictor"
INPUT_NAME = "input__0"
OUTPUT_NAME = "output__0"
SEQUENCE_LENGTH = 64
FEATURE_COUNT = 16
CLASS_COUNT = 2
MAX_BATCH_SIZE = 64
PREFERRED_BATCH_SIZES = (8, 16, 32)
MAX_QUEUE_DELAY_US = 100
ONNX_OPSET = 18
ONNX_ML_OPSET = 3  # of domain ai.onnx.ml, which has the tree node
TENSORRT_WORKSPACE_BYTES = 4 << 30

ENGINE_NAMES = (
    "torch-fp32",
    "torch-amp",
    "torch-compile",
    "torch-compile-fp16",
    "onnxruntime-fp32",
    "onnxruntime-int8",
    "onnxruntime-pruned",
    "openvino-fp32",
    "openvino-bf16",
    "openvino-int8",
    "openvino-pruned",
    "openvino-pruned-bf16",
    "tensorrt-fp32",
    "tensorrt-fp16",
    "tensorrt-bf16",
    "tensorrt-sparse",
)
REFERENCE_ENGINE = "torch-fp32"
# these take minutes to compile and cannot be staged: only `tickline bench` measures them
NIGHTLY_ENGINES = tuple(name for name in ENGINE_NAMES if not name.startswith("torch-compile"))
# of the design's network, timed beside another model's engines: eager FP32 and its fastest on a CPU
BESIDE_ENGINES = ("torch-fp32", "openvino-bf16")
TRITON_ROW = "triton-grpc"  # one engine behind a real Triton server, in the same table
CHAMPION_ROW = "champion"  # the serving model, measured with the engines
ANCHOR_ROW = "anchor"  # the model that served many nights ago, measured with the engines
BOOSTING_ROW = "gradient boosting"  # the baseline, whose predictions are compared with the engines'

# Aliases in MLflow's model registry.
CHAMPION_ALIAS = "champion"
PREVIOUS_ALIAS = "previous"
CHALLENGER_ALIAS = "challenger"
CHALLENGER_SIMULATED_ALIAS = "challenger-simulated"  # must not replace the real challenger
