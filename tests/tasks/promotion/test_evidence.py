"""What the evidence says about the version that the gate compared with."""

import datetime as dt
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.live.feedback.drift_event import DriftEvents
from infra.live.feedback.spec import feedback_folder
from model_code.benchmark.result import BenchmarkResult
from model_code.benchmark.significance import Interval
from model_code.benchmark.verdict import GoalRow
from model_code.features.served import SOLO, SeenFeatures, ServedFeatures
from model_code.live.feedback.figures import Figures
from model_code.repository.manifest import Manifest
from model_code.settings import CHAMPION_ROW, MODEL_NAME, FeatureSpec, ServingSpec, Settings
from tasks.promotion.evidence import CAPTIONS, Evidence, gather, render, summary
from tasks.promotion.show_evidence import live_drift
from tasks.runs import mlflow_runs
from tasks.runs.version_tags import START_TAG
from tests.support.benchmark import benchmark_run
from tests.support.promotion import registered, verdict
from tests.support.serving import staged

LABEL = np.arange(40) % 2
ANSWER = np.linspace(0.1, 0.9, 40)


def measured(champion: int | None) -> BenchmarkResult:
    names = ["torch-fp32", "onnxruntime-fp32"] + ([] if champion is None else [CHAMPION_ROW])
    run = benchmark_run(
        LABEL, dict.fromkeys(names, ANSWER), {name: np.full(40, 1.0) for name in names}
    )
    rows = tuple(
        row.model_copy(update={"facts": row.facts.model_copy(update={"version": champion})})
        if row.engine == CHAMPION_ROW
        else row
        for row in run.result.rows
    )
    return run.result.model_copy(update={"rows": rows})


def full(tmp_path: Path, **changes: Any) -> Evidence:
    """A candidate beside a champion and boosting, with drift and faults."""
    judged = verdict("pass")
    boosting = GoalRow(
        name="AUC no worse than gradient boosting", metric="auc", kind="max-degradation",
        value=0.8037, reference=0.7999, limit="at most 0.005 worse",
        interval=Interval(low=0.0022, high=0.0054, confidence=0.95),
        margin=0.007, passed=True, reason="met", over="boosting",
    )  # fmt: skip
    facts: dict[str, Any] = {
        "manifest": Manifest.load(staged(tmp_path / "staging", 7)),
        "verdict": judged.model_copy(update={"rows": (*judged.rows, boosting)}),
        "benchmark": measured(3),
        "engine": "onnxruntime-fp32",
        "days": [
            {"instrument": "A", "date": "2024-08-09", "rows": 2000, "quarantined": 3,
             "faults": "crossed 3", "verdict": "passed"},
        ],
        "drift": {"spread": 0.1, "volatility": 0.9, "depth": 0.2},
        "pictures": {},
        "model_kind": "blend",
        "champion": 3,
        "champion_engine": "openvino-int8",
        "champion_kind": "mlp",
        "champion_features": SOLO,
        "links": {"this promotion in MLflow": "http://127.0.0.1:5000/#/experiments/1"},
        "policy_sha256": "ab" * 32,
        "exceptions": ("large drift of volatility",),
    }  # fmt: skip
    return Evidence.model_validate(facts | changes)


def first_version(tmp_path: Path) -> Evidence:
    return full(
        tmp_path,
        verdict=verdict("no baseline"),
        benchmark=measured(None),
        champion=None,
        champion_features=None,
        exceptions=("no baseline",),
    )


@pytest.mark.parametrize("evidence", [full, first_version])
def test_the_page_is_one_readable_file(
    tmp_path: Path, evidence: Callable[[Path], Evidence]
) -> None:
    picture = tmp_path / "roc.png"
    picture.write_bytes(b"png")
    page = render(evidence(tmp_path).model_copy(update={"pictures": {"roc": picture}}))
    assert page.count("<h1>") == 1
    assert '<html lang="en">' in page
    assert not re.findall(r"<th(?![^>]* scope=)[ >]", page)
    assert re.findall(r"<img alt=\"[^\"]+\" src=\"data:", page)
    assert not re.findall(r'src="(?!data:)', page)
    (link,) = re.findall(r'<a [^>]*href="http[^>]*>', page)
    assert 'target="_blank" rel="noopener"' in link
    found = re.findall(r"<h2>(.*?)</h2>", page)
    assert [name for name in found if name != "Changed since the champion"] == [
        "Gate", "Engines", "Pictures of onnxruntime-fp32", "Feature drift",
        "What the model looks at", "Data", "Links", "What is approved",
    ]  # fmt: skip
    top, rest = page.split("<section>", 1)
    assert "ab" * 32 not in rest.split("<h2>What is approved", 1)[0] + top


def test_the_top_of_the_page_has_what_a_reviewer_decides_by(tmp_path: Path) -> None:
    found = full(tmp_path)
    top = re.sub(r"<[^>]*>", " ", render(found).split("<main", 1)[1].split("<section>", 1)[0])
    words = " ".join(top.split())
    auc = f"{found.benchmark.row('onnxruntime-fp32').quality.auc:.4f}"  # type: ignore[union-attr]
    for part in (
        "Tested on 2024-08-09",
        "serves now 3 openvino-int8 mlp if approved 7 onnxruntime-fp32 blend",
        "Verdict of the gate pass all goals are met",
        f"AUC {auc} champion {auc} gradient boosting 0.7999 (gain +0.0022 .. +0.0054)",
        "base rate 50.0% gain: 95% interval of the AUC difference",
        "p99 of one window 1.00 ms champion 1.00 ms",
        "Drifted features 1 of 3 volatility",
        "Rows quarantined 3 of 2,000 rows crossed 3",
        "exception and needs an owner and a last day: large drift of volatility.",
    ):
        assert part in words


def test_a_first_version_has_no_baseline_once(tmp_path: Path) -> None:
    page = render(first_version(tmp_path))
    assert page.lower().count("no baseline") == 1
    assert "Changed since the champion" not in page
    assert "not compared</span>" in page


def test_the_forms_text_begins_with_what_a_reviewer_decides_by(tmp_path: Path) -> None:
    found = full(tmp_path)
    auc = f"{found.benchmark.row('onnxruntime-fp32').quality.auc:.4f}"  # type: ignore[union-attr]
    assert summary(found, "URL").splitlines()[:6] == [
        "Promote **version 7** (onnxruntime-fp32)? It replaces version 3. "
        "**pass**: all goals are met. Tested on 2024-08-09. [Evidence](URL)",
        "",
        f"- AUC: **{auc}**; champion {auc}, gradient boosting 0.7999 (gain +0.0022 .. +0.0054), "
        "base rate 50.0%",
        "- p99: **1.00 ms**; champion 1.00 ms",
        "- features drifted far: **1 of 3: volatility**",
        "- **exception**: large drift of volatility. It needs an owner and a last day",
    ]
    assert summary(found, "URL").count("URL") == 1
    assert summary(first_version(tmp_path / "first"), "URL").startswith(
        "Promote **version 7** (onnxruntime-fp32)? No version serves yet. **no baseline**: "
    )


def test_a_long_table_of_days_is_folded(tmp_path: Path) -> None:
    days = [{"instrument": f"I{i % 4}", "date": f"2024-{1 + i // 4:02}"} for i in range(240)]
    assert "<summary>All 240 instrument-days</summary>" in render(full(tmp_path, days=days))
    assert "instrument-days" not in render(full(tmp_path / "few", days=days[:12]))


def test_the_pictures_are_of_the_staged_engine_from_the_nights_raw_numbers(
    home: Settings, tmp_path: Path
) -> None:
    registered(home, 1, name="openvino-fp32")
    mlflow, folder = mlflow_runs.client(home), home.staging_repository / MODEL_NAME / "1"
    run_id = Manifest.load(folder).mlflow_run_id
    mlflow.set_model_version_tag(MODEL_NAME, "1", START_TAG, '{"network": {"KIND": "mlp"}}')
    before = gather(mlflow, folder, "openvino-fp32", None, {}, tmp_path / "before")
    assert (before.pictures, before.model_kind) == ({}, "mlp")
    assert "answers of this engine are not in MLflow" in render(before)

    run = benchmark_run(
        LABEL, dict.fromkeys(("torch-fp32", "openvino-fp32", CHAMPION_ROW), ANSWER),
        dict.fromkeys(("torch-fp32", "openvino-fp32", CHAMPION_ROW), np.full(40, 1.0)),
        boosting_N=ANSWER,
    )  # fmt: skip
    run.save(tmp_path / "run")
    mlflow.log_artifacts(run_id, str(tmp_path / "run"), "benchmark")
    found = gather(mlflow, folder, "openvino-fp32", None, {}, tmp_path / "after")
    assert set(found.pictures) == {"calibration", "precision_recall", "roc", "latency_ecdf"}
    assert found.pictures.keys() <= CAPTIONS.keys()
    assert 'alt="calibration of openvino-fp32 beside' in render(found)
    other = gather(mlflow, folder, "torch-fp16", None, {}, tmp_path / "other")
    assert other.pictures == {}, "it was not measured"


@pytest.mark.parametrize(
    ("compared", "serves", "words"),
    [
        (None, None, ""),
        (3, 3, ""),
        (2, 3, "compared it with version 2, but version 3 serves now"),
        (None, 3, "compared it with nothing, but version 3 serves now"),
    ],
)
def test_a_comparison_with_another_than_the_serving_version_is_outdated(
    tmp_path, compared: int | None, serves: int | None, words: str
) -> None:
    found = Evidence(
        manifest=Manifest.load(staged(tmp_path / "staging", 7)),
        verdict=verdict("no baseline" if compared is None else "pass"),
        benchmark=measured(compared),
        engine="onnxruntime-fp32",
        days=[{"instrument": "A"}],
        notes=("A has no ticks on 2024-08-09",),
        drift={},
        pictures={},
        champion=serves,
        links={},
    )
    page, form = render(found), summary(found, "http://127.0.0.1")
    assert "A has no ticks on 2024-08-09" in page
    assert ("Outdated comparison" in page) == ("outdated comparison" in form) == bool(words)
    assert words in found.outdated
    assert words in form


def test_sustained_breaches_of_live_decisions_are_shown(tmp_path) -> None:
    line = "2026-03-01 12:00 UTC, version 3, desk: PSI of spread 0.90, limit 0.25"
    found = Evidence(
        manifest=Manifest.load(staged(tmp_path / "staging", 7)),
        verdict=verdict("pass"),
        benchmark=measured(3),
        engine="onnxruntime-fp32",
        days=[],
        drift={},
        pictures={},
        champion=3,
        live=(line,),
        links={},
    )
    assert f"- **live drift**: {line}" in summary(found, "http://127.0.0.1")
    assert "<h3>Live drift</h3>" in render(found)
    assert line in render(found)
    quiet = found.model_copy(update={"live": ()})
    assert "ive drift" not in render(quiet) + summary(quiet, "http://127.0.0.1")


def test_a_loosened_limit_is_shown_in_red_and_the_policy_by_its_hash(tmp_path) -> None:
    found = Evidence(
        manifest=Manifest.load(staged(tmp_path / "staging", 7)),
        verdict=verdict("pass"),
        benchmark=measured(3),
        engine="onnxruntime-fp32",
        days=[],
        drift={},
        pictures={},
        champion=3,
        links={},
        policy_sha256="ab" * 32,
        loosened=("max_disagreement 0.4, the policy's limit is 0.2",),
    )
    page, form = render(found), summary(found, "http://127.0.0.1")
    line = "max_disagreement 0.4, the policy&#39;s limit is 0.2"
    assert f'<div class="box fail">\n<p><b>Loosened.</b> {line}.</p>' in page
    assert "- **loosened: max_disagreement 0.4, the policy's limit is 0.2**" in form
    assert "ab" * 32 in page
    strict = found.model_copy(update={"loosened": ()})
    assert "oosened" not in render(strict) + summary(strict, "http://127.0.0.1")


def test_breaches_are_read_from_the_home_of_the_services(tmp_path) -> None:
    settings, now = Settings(home=tmp_path), dt.datetime.now(dt.UTC)
    figures = Figures(version=3, from_ns=0, until_ns=1, decisions=9, unlabelled=0, breaches=("A",))
    assert live_drift(settings) == []
    for group, age in (("desk", 1), ("other", 2), ("old", 15)):
        events = DriftEvents(feedback_folder(tmp_path, group) / "drift", group, settings)
        assert events.claim(figures, 3, now - dt.timedelta(days=age))
    assert [line.split("UTC, ")[1] for line in live_drift(settings)] == [
        "version 3, desk: A",
        "version 3, other: A",
    ]


@pytest.mark.parametrize(
    ("champion", "differ"),
    [
        (SOLO, True),
        (SeenFeatures(feature_set="paired", leaders={"A": ("C",)}), True),
        (SeenFeatures(feature_set="paired", leaders={"A": ("B",)}), False),
    ],
)
def test_features_of_both_versions_are_shown_and_whether_they_differ(
    tmp_path, champion: SeenFeatures, differ: bool
) -> None:
    features = ServedFeatures.of(FeatureSpec(feature_set="paired"), {"A": ("B",)})
    found = Evidence(
        manifest=Manifest.load(staged(tmp_path / "staging", 7, features=features)),
        verdict=verdict("pass"),
        benchmark=measured(3),
        engine="onnxruntime-fp32",
        days=[],
        drift={},
        pictures={},
        champion=3,
        champion_features=champion,
        links={},
    )
    page, form = render(found), summary(found, "http://127.0.0.1")
    assert "paired, looks at others: A at B" in page
    assert "- features: paired, looks at others: A at B" in form
    assert champion.text in page
    assert ("<b>Other features.</b> Version 7 and version 3 see different" in page) == differ
    assert ("other features than the champion" in form) == differ


def test_the_servers_settings_are_shown(tmp_path: Path) -> None:
    serving = ServingSpec(instances=2, queue_delay_us=0, preferred_batch_sizes=(), threads=1)
    found = Evidence(
        manifest=Manifest.load(staged(tmp_path / "staging", 7)),
        verdict=verdict("pass"),
        benchmark=measured(3),
        engine="onnxruntime-fp32",
        days=[],
        drift={},
        pictures={},
        champion=None,
        links={},
        serving=serving.text,
    )
    assert f"- server: {serving.text}" in summary(found, "http://127.0.0.1")
    assert serving.text in render(found).replace("&#39;", "'")
