"""What the evidence says about the version that the gate compared with."""

import datetime as dt
from pathlib import Path

import numpy as np
import pytest

from infra.live.feedback.drift_event import DriftEvents
from infra.live.feedback.spec import feedback_folder
from model_code.benchmark.result import BenchmarkResult
from model_code.features.served import SOLO, SeenFeatures, ServedFeatures
from model_code.live.feedback.figures import Figures
from model_code.repository.manifest import Manifest
from model_code.settings import CHAMPION_ROW, FeatureSpec, ServingSpec, Settings
from tasks.promotion.evidence import Evidence, render, summary
from tasks.promotion.show_evidence import live_drift
from tests.support.benchmark import benchmark_run
from tests.support.promotion import verdict
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
    assert "<h2>Live drift</h2>" in render(found)
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
    assert f'<div class="box fail"><b>Loosened.</b> {line}.</div>' in page
    assert "- **loosened: max_disagreement 0.4, the policy's limit is 0.2**" in form
    assert "ab" * 32 in page
    assert f"policy `{'ab' * 6}`" in form
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
