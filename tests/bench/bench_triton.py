"""Batch 1 through the Triton server against the same engine called directly, and where time goes.

    python -m tests.bench.bench_triton [--requests 400] [--rounds 4] [--threads 1 2]

Both are asked in turn, round by round, each call after the same pause. The network has its full
size and untrained weights. Times are ms: p50 and p99 as the caller sees them, then the server's own
means (queue, in, infer, out) and what is left: gRPC, the client and scheduling.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from infra.triton.engine import serving_engine
from model_code import machine, network
from model_code.engines.packaged import PackagedEngine
from model_code.engines.protocol import EngineSource, Predictor
from model_code.engines.registry import ENGINES
from model_code.export import export_onnx
from model_code.serving.client import TritonClient
from model_code.serving.predictor import TritonPredictor
from model_code.settings import NetworkSpec, Settings

SERVED = ("onnxruntime-fp32", "openvino-fp32")
PARTS = ("queue", "compute_input", "compute_infer", "compute_output")


def timed(predictor: Predictor, x_NTF: np.ndarray, requests: int, pause_s: float) -> list[float]:
    took = []
    for number in range(requests):
        x_BTF = x_NTF[number % len(x_NTF)][None]
        time.sleep(pause_s)
        began = time.perf_counter()
        predictor.predict(x_BTF)
        took.append((time.perf_counter() - began) * 1e3)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=400, help="each way, per round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--engines", nargs="+", default=SERVED)
    parser.add_argument("--pause-ms", type=float, default=2.0)
    asked = parser.parse_args()
    x_NTF = np.random.default_rng(0).normal(0, 1, (64, 64, 16)).astype(np.float32)
    facts = machine.facts()
    print({key: facts[key] for key in list(facts)[:6]})
    print(f"{'engine':18}{'threads':>8}{'direct p50':>12}{'p99':>7}{'Triton p50':>12}{'p99':>7}"
          f"{'more':>7}" + "".join(f"{name.split('_')[-1]:>8}" for name in PARTS) + f"{'rest':>8}")  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        source = export(Path(scratch))
        for name in asked.engines:
            engine, folder = ENGINES[name], Path(scratch) / name
            assert isinstance(engine, PackagedEngine)
            built = engine.build(source, folder)
            for threads in asked.threads:
                sidecar = built.model_copy(update={"threads": threads})
                direct = engine._open(folder / sidecar.file, threads)
                with (
                    serving_engine(Settings(home=Path(scratch)), folder, sidecar) as server,
                    TritonClient(server.grpc_url) as client,
                ):
                    triton = TritonPredictor(client)
                    seen: dict[str, list[float]] = {"direct": [], "triton": []}
                    pause_s = asked.pause_ms / 1e3
                    for predictor in (direct, triton):
                        timed(predictor, x_NTF, 50, pause_s)
                    before = client.statistics()
                    for _ in range(asked.rounds):
                        seen["direct"] += timed(direct, x_NTF, asked.requests, pause_s)
                        seen["triton"] += timed(triton, x_NTF, asked.requests, pause_s)
                    after = client.statistics()
                each = {
                    part: (getattr(after, f"{part}_ns") - getattr(before, f"{part}_ns"))
                    / (after.requests - before.requests)
                    / 1e6
                    for part in PARTS
                }
                rest = float(np.mean(seen["triton"])) - sum(each.values())
                p50 = {way: float(np.median(took)) for way, took in seen.items()}
                p99 = {way: float(np.percentile(took, 99)) for way, took in seen.items()}
                print(
                    f"{name:18}{threads:8}{p50['direct']:12.2f}{p99['direct']:7.2f}"
                    f"{p50['triton']:12.2f}{p99['triton']:7.2f}{p50['triton'] - p50['direct']:7.2f}"
                    + "".join(f"{each[part]:8.2f}" for part in PARTS)
                    + f"{rest:8.2f}",
                    flush=True,
                )


def export(folder: Path) -> EngineSource:
    torch.manual_seed(0)
    model = network.FinancialPredictor(NetworkSpec()).eval()
    x_BTF = np.random.default_rng(1).normal(0, 1, (16, 64, 16)).astype(np.float32)
    model.fit_standardisation(x_BTF.reshape(-1, 16))
    network.save(model, folder / "model.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_onnx(model, x_BTF, folder / "model.onnx")
    return EngineSource(folder / "model.pt", folder / "model.onnx", folder / "model.ts")


if __name__ == "__main__":
    main()
