"""Specifications small enough for tests, large enough to go through every stage."""

from model_code.settings import (
    BenchmarkSpec,
    NetworkSpec,
    NightlySpec,
    SplitSpec,
    TrainingSpec,
    ValidationSpec,
)

TINY_NETWORK = NetworkSpec(d_model=16, heads=2, layers=1, feed_forward=32)
QUICK_BENCHMARK = BenchmarkSpec(
    engines=("onnxruntime-fp32", "openvino-fp32", "tensorrt-fp16"),
    warmup=2,
    requests=40,
    rounds=2,
    batches=(1, 64),
    throughput_rounds=1,
    open_loop_requests=6,
    served=False,
    concurrency=(1, 4),
    concurrent_requests=20,
)


def tiny(market: str, **changes: object) -> NightlySpec:
    """A nightly of seconds."""
    values: dict[str, object] = {
        "market": market,
        "validation": ValidationSpec(minimum_rows=100),
        "split": SplitSpec(train_windows=512, validation_windows=256, test_windows=256),
        "network": TINY_NETWORK,
        "training": TrainingSpec(epochs=2, batch_size=32, learning_rate=2e-3),
        "benchmark": QUICK_BENCHMARK,
    }
    return NightlySpec(**(values | changes))  # type: ignore[arg-type]
