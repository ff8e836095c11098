"""Batch 1 through the Triton server against the same engine called directly, and where time goes.

    python -m tests.bench.bench_triton [--requests 400] [--rounds 4] [--threads 1 2]

Both are asked in turn, round by round, each call after the same pause. The network has its full
size and untrained weights. Times are ms: p50 and p99 as the caller sees them, then the server's own
means (queue, in, infer, out) and what is left: gRPC, the client and scheduling.

Below each line stand the floors, taken in the same rounds: a window there and eight bytes back over
a pipe between two processes, the engine behind such a pipe, the server's health call, and a model
that answers zeros through the server: all that is not the engine. `--awake` keeps the cores from
idling by loops of the lowest priority: what is gone then was the machine's price of waking a core.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from infra.triton.engine import serving_engine
from infra.triton.server import TritonServer, running
from model_code import machine
from model_code.engines.packaged import PackagedEngine
from model_code.engines.protocol import EngineSource
from model_code.engines.registry import ENGINES
from model_code.engines.sidecar import EngineSidecar
from model_code.export.graph import export_onnx
from model_code.models import network
from model_code.repository import triton_config
from model_code.serving.client import TritonClient
from model_code.serving.predictor import TritonPredictor
from model_code.settings import MODEL_NAME, NetworkSpec, Settings

SERVED = ("onnxruntime-fp32", "openvino-fp32")
PARTS = ("queue", "compute_input", "compute_infer", "compute_output")


NULL_MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            x_BTF = pb_utils.get_input_tensor_by_name(request, "{x}").as_numpy()
            zeros = pb_utils.Tensor("{y}", np.zeros((len(x_BTF), 2), np.float32))
            answers.append(pb_utils.InferenceResponse([zeros]))
        return answers
"""
Call = Callable[[np.ndarray], object]


def health(client: TritonClient) -> Call:
    return lambda _: client.live()


def timed(call: Call, x_NTF: np.ndarray, requests: int, pause_s: float) -> list[float]:
    took = []
    for number in range(requests):
        x_BTF = x_NTF[number % len(x_NTF)][None]
        time.sleep(pause_s)
        began = time.perf_counter()
        call(x_BTF)
        took.append((time.perf_counter() - began) * 1e3)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=50, help="each way, per round")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--engines", nargs="+", default=SERVED)
    parser.add_argument("--pause-ms", type=float, default=2.0)
    parser.add_argument("--awake", action="store_true", help="keep every core from idling")
    asked = parser.parse_args()
    x_NTF = np.random.default_rng(0).normal(0, 1, (64, 64, 16)).astype(np.float32)
    facts = machine.facts()
    print({key: facts[key] for key in list(facts)[:6]})
    columns = [f"{name.split('_')[-1]:>8}" for name in (*PARTS, "rest")]
    print(
        f"{'engine':18}{'threads':>8}{'direct p50':>12}{'p99':>7}{'Triton p50':>12}{'p99':>7}"
        f"{'more':>7}" + "".join(columns)
    )
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as whole:
        if asked.awake:
            whole.enter_context(awake())
        source = export(Path(scratch))
        settings = Settings(home=Path(scratch))
        for name in asked.engines:
            engine, folder = ENGINES[name], Path(scratch) / name
            assert isinstance(engine, PackagedEngine)
            built = engine.build(source, folder)
            for threads in asked.threads:
                sidecar = built.model_copy(update={"threads": threads})
                with ExitStack() as stack:
                    held = stack.enter_context
                    ping = held(piped())
                    behind = held(piped(name, folder / sidecar.file, threads))
                    direct = engine._open(folder / sidecar.file, threads)
                    server = held(serving_engine(settings, folder, sidecar))
                    client = held(server.client())
                    null = held(TritonClient(held(serving_null(settings, sidecar)).grpc_url))
                    ways: dict[str, Call] = {
                        "direct": direct.predict,
                        "triton": TritonPredictor(client).predict,
                        "pipe, 8 bytes back": ping,
                        "engine behind a pipe": behind,
                        "health call": health(client),
                        "null model": TritonPredictor(null).predict,
                    }
                    seen: dict[str, list[float]] = {way: [] for way in ways}
                    pause_s = asked.pause_ms / 1e3
                    for call in ways.values():
                        timed(call, x_NTF, 20, pause_s)
                    before = client.statistics()
                    for _ in range(asked.rounds):
                        for way, call in ways.items():
                            seen[way] += timed(call, x_NTF, asked.requests, pause_s)
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
                    + f"{rest:8.2f}"
                )
                for way in list(ways)[2:]:
                    print(f"    {way:22}{p50[way]:12.2f}{p99[way]:7.2f}", flush=True)


@contextmanager
def piped(engine: str = "", path: Path = Path(), threads: int = 1) -> Iterator[Call]:
    """A call answered by another process over a pipe; without an engine, by eight bytes."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit the engines' locks
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs, engine, path, threads), daemon=True)
    process.start()
    theirs.close()

    def call(x_BTF: np.ndarray) -> bytes:
        ours.send_bytes(x_BTF.tobytes())
        return ours.recv_bytes()

    try:
        yield call
    finally:
        ours.close()
        process.join()


def _answer(pipe: Connection, engine: str, path: Path, threads: int) -> None:
    opener = ENGINES[engine] if engine else None
    assert opener is None or isinstance(opener, PackagedEngine)
    predictor = opener._open(path, threads) if opener else None
    while True:
        try:
            sent = pipe.recv_bytes()
        except EOFError:
            return
        if predictor:
            x_BTF = np.frombuffer(sent, np.float32).reshape(1, 64, 16)
            pipe.send_bytes(predictor.predict(x_BTF).tobytes())
        else:
            pipe.send_bytes(sent[:8])


@contextmanager
def serving_null(settings: Settings, sidecar: EngineSidecar) -> Iterator[TritonServer]:
    """A server whose model computes nothing, its configuration otherwise the engine's."""
    config = triton_config.parse(triton_config.model_config(sidecar))
    config.platform, config.backend, config.default_model_filename = "", "python", "model.py"
    config.parameters.clear()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / MODEL_NAME
        (home / "1").mkdir(parents=True)
        (home / "config.pbtxt").write_text(str(config))
        names = {"x": sidecar.inputs[0].name, "y": sidecar.outputs[0].name}
        (home / "1" / "model.py").write_text(NULL_MODEL.format(**names))
        with running(settings, Path(folder), models=(MODEL_NAME,)) as server:
            yield server


@contextmanager
def awake() -> Iterator[None]:
    """A loop of the lowest priority on each core: it gives way at once, and no core halts."""
    loops = [
        subprocess.Popen(
            ["chrt", "-i", "0", "taskset", "-c", str(core), sys.executable, "-c", "while 1: pass"]
        )
        for core in sorted(os.sched_getaffinity(0))
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def export(folder: Path) -> EngineSource:
    torch.manual_seed(0)
    model = network.FinancialPredictor(NetworkSpec()).eval()
    x_BTF = np.random.default_rng(1).normal(0, 1, (16, 64, 16)).astype(np.float32)
    model.fit_standardisation(x_BTF.reshape(-1, 16))
    network.save(model, folder / "model.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_onnx(model, x_BTF, folder / "model.onnx")
    calibration = folder / "calibration.npy"  # what the pruned engines are fitted on
    np.save(calibration, np.random.default_rng(2).normal(0, 1, (1024, 64, 16)).astype(np.float32))
    return EngineSource(
        folder / "model.pt", folder / "model.onnx", folder / "model.ts", calibration
    )


if __name__ == "__main__":
    main()
