"""What begins a benchmark's report."""

import numpy as np
import pytest

from model_code.benchmark.reports.selection import Selection, faster, headline, opening
from model_code.benchmark.result import BenchmarkRun
from tests.support.benchmark import benchmark_run

RANDOM = np.random.default_rng(1)
ANSWER = RANDOM.uniform(size=200)
LABEL = (RANDOM.uniform(size=200) < ANSWER).astype(np.int8)
P50 = {
    "torch-fp32": 4.0,
    "torch-compile": 0.9,
    "onnxruntime-fp32": 2.0,
    "openvino-int8": 1.0,
    "openvino-pruned": 0.5,
    "champion": 0.1,
}
WHY = "probabilities stay close to FP32: 0.0234, limit <= 0.02"
CHOSEN = Selection(
    engine="openvino-int8",
    reason="openvino-int8 is the fastest that did not fail",
    verdicts={"onnxruntime-fp32": "pass", "openvino-int8": "pass", "openvino-pruned": "fail"},
    reasons={"openvino-int8": "all goals are met", "openvino-pruned": "missed: closeness"},
    missed={"openvino-pruned": (WHY,)},
)
NONE = Selection(
    engine="onnxruntime-fp32",
    reason="every engine failed the gate; onnxruntime-fp32 missed the fewest goals",
    verdicts=dict.fromkeys(CHOSEN.verdicts, "fail"),
    reasons=dict.fromkeys(CHOSEN.verdicts, "missed: AUC"),
)


@pytest.fixture(scope="module")
def run() -> BenchmarkRun:
    return benchmark_run(
        LABEL, dict.fromkeys(P50, ANSWER), {name: np.full(40, ms) for name, ms in P50.items()}
    )


def test_each_faster_engine_has_the_reason_why_it_was_not_chosen(run: BenchmarkRun) -> None:
    assert faster(run.result, CHOSEN).rows == (
        ("openvino-pruned", "0.50", "fail", WHY),
        ("torch-compile", "0.90", "not judged", "Triton cannot serve it"),
    )


def test_an_equally_fast_engine_is_no_failure(run: BenchmarkRun) -> None:
    reason = "openvino-int8 wins among equally fast engines that did not fail: ..."
    tied = Selection("openvino-int8", reason, dict.fromkeys(CHOSEN.verdicts, "pass"), {})
    (first, *_) = faster(run.result, tied).rows
    assert first == ("openvino-pruned", "0.50", "pass", f"did not fail; {reason}")


def test_the_fastest_engine_has_no_faster_one(run: BenchmarkRun) -> None:
    fastest = Selection("openvino-pruned", "", {"openvino-pruned": "pass"}, {})
    sheet = faster(run.result, fastest)
    assert (sheet.rows, sheet.note) == ((), "No engine is faster than openvino-pruned.")
    assert opening(run.result, fastest).endswith("No engine is faster than openvino-pruned.\n")


def test_the_opening_names_engine_ratio_verdict_and_reasons(run: BenchmarkRun) -> None:
    text = opening(run.result, CHOSEN)
    assert text.startswith("**Chosen openvino-int8: 4.0x torch-fp32 at batch 1")
    assert "Verdict pass: all goals are met." in text
    assert "openvino-int8 is the fastest that did not fail." in text
    assert f"| openvino-pruned | 0.50 | fail | {WHY} |" in text


def test_without_an_engine_to_stage_all_judged_ones_have_their_reason(run: BenchmarkRun) -> None:
    assert not NONE.accepted
    assert headline(run.result, NONE).startswith("no engine may be staged; nearest onnxruntime")
    sheet = faster(run.result, NONE)
    assert sheet.title == "Why none passed"
    assert [row[0] for row in sheet.rows] == [
        "openvino-pruned",
        "openvino-int8",
        "onnxruntime-fp32",
    ]
    assert {row[3] for row in sheet.rows} == {"missed: AUC"}
