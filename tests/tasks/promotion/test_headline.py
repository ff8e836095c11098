import numpy as np

from model_code.benchmark.significance import Interval
from model_code.benchmark.verdict import GoalRow
from model_code.settings import CHAMPION_ROW
from tasks.promotion import headline
from tests.support.benchmark import benchmark_run
from tests.support.promotion import verdict

LABEL = np.arange(40) % 4 == 0
ANSWER = np.linspace(0.1, 0.9, 40)
BOOSTING = GoalRow(
    name="AUC no worse than gradient boosting", metric="auc", kind="max-degradation", value=0.8037,
    reference=0.7999, limit="at most 0.005 worse",
    interval=Interval(low=0.0022, high=0.0054, confidence=0.95),
    margin=0.007, passed=True, reason="met", over="boosting",
)  # fmt: skip


def test_auc_stands_beside_boosting_champion_and_base_rate() -> None:
    names = ("torch-fp32", "onnxruntime-fp32", CHAMPION_ROW)
    latency_R = dict.fromkeys(names, np.full(40, 2.0))
    result = benchmark_run(LABEL.astype(np.int8), dict.fromkeys(names, ANSWER), latency_R).result
    judged = verdict("pass")
    judged = judged.model_copy(update={"rows": (*judged.rows, BOOSTING)})
    row = result.row("onnxruntime-fp32")
    assert row is not None
    assert headline.auc(row) == f"{row.quality.auc:.4f}"
    assert headline.rivals(judged, result, row) == (
        f"champion {row.quality.auc:.4f}",
        "gradient boosting 0.7999 (gain +0.0022 .. +0.0054)",
        "base rate 25.0%",
    )
    assert headline.gain_note(judged) == "gain: 95% interval of the AUC difference"
    over_champion = BOOSTING.model_copy(
        update={
            "over": "champion",
            "interval": Interval(low=-0.001, high=0.002, confidence=0.975),
        }
    )
    judged = judged.model_copy(update={"rows": (*judged.rows, over_champion)})
    champion, _, _ = headline.rivals(judged, result, row)
    assert champion == f"champion {row.quality.auc:.4f} (gain -0.0010 .. +0.0020)"
    assert headline.gain_note(judged) == "gain: 95% and 97.5% interval of the AUC difference"


def test_the_champions_p99_says_if_it_is_not_of_the_engine_that_serves() -> None:
    names = ("torch-fp32", CHAMPION_ROW)
    latency_R = dict.fromkeys(names, np.full(40, 2.0))
    result = benchmark_run(LABEL.astype(np.int8), dict.fromkeys(names, ANSWER), latency_R).result
    assert headline.latency(result) == "champion 2.00 ms"
    rows = tuple(
        row.model_copy(update={"facts": row.facts.model_copy(update={"same_engine": False})})
        for row in result.rows
    )
    other = result.model_copy(update={"rows": rows})
    assert headline.latency(other) == "champion 2.00 ms, of its ONNX graph, not its engine"


def test_what_is_missing_is_said() -> None:
    judged = verdict("no baseline")
    assert headline.rivals(judged, None, None) == (
        "champion: none",
        "gradient boosting: not compared",
        "base rate not recorded",
    )
    assert headline.latency(None) == "champion: none"
    assert headline.auc(None) == "not recorded"
    assert headline.gain_note(judged) == ""
    assert headline.faults([{"instrument": "A"}]) == "not recorded"
    assert headline.test_date([]) == "not recorded"
    assert headline.drifted({}) == "not recorded"


def test_drift_faults_and_the_test_day() -> None:
    assert headline.drifted({"a": 0.1, "b": 0.2}) == "0 of 2"
    assert headline.drifted({"a": 0.3, "b": 0.2, "c": 9.0}) == "2 of 3: a, c"
    days = [
        {"date": "2024-08-08", "rows": 1000, "quarantined": 3},
        {"date": "2024-08-09", "rows": 500, "quarantined": 0},
    ]
    assert headline.faults(days) == "3 of 1,500 rows"
    assert headline.test_date(days) == "2024-08-09"


def test_faults_are_counted_by_kind() -> None:
    days = [
        {"faults": "crossed 3, negative size 20"},
        {"faults": "none"},
        {"faults": "negative size 1000"},
    ]
    assert headline.fault_kinds(days) == "negative size 1,020, crossed 3"
    assert headline.fault_kinds([{"instrument": "A"}]) == ""
