"""Cache keys: what changes them, and what does not."""

import datetime as dt
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_code.artifacts import ArtifactRef
from model_code.errors import ConfigError
from model_code.machine import processor
from model_code.settings import FeatureSpec
from tasks.caching import fingerprint
from tasks.caching.fingerprint import (
    canonical,
    environment,
    import_closure,
    source_fingerprint,
    stage_key,
)
from tasks.nightly.records import SourceDay

LABELS = "model_code.features.labels"


def ref(name: str = "a", sha256: str = "ab") -> ArtifactRef:
    return ArtifactRef.of(name=name, sha256=sha256)


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A first-party package of three modules; the first imports the second, that the third."""
    package = tmp_path / "sample"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "top.py").write_text("from sample import middle\n")
    (package / "middle.py").write_text("import json\ndef f():\n    from sample.low import x\n")
    (package / "low.py").write_text("x = 1\n")
    (package / "unrelated.py").write_text("y = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(fingerprint, "FIRST_PARTY", ("sample",))
    importlib.invalidate_caches()
    source_fingerprint.cache_clear()
    yield package
    source_fingerprint.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "sample"]:
        del sys.modules[name]


def test_key_of_an_artefact_is_its_content_not_its_name() -> None:
    assert canonical(ref("a")) == canonical(ref("b"))
    assert canonical(ref(sha256="ab")) != canonical(ref(sha256="cd"))


def test_models_dates_and_sequences_are_reduced_to_plain_values() -> None:
    day = SourceDay(market="m", date=dt.date(2024, 8, 8), symbol="A", digest="d", simulated=False)
    assert canonical({"days": (day,), "spec": FeatureSpec()}) == {
        "days": [
            {
                "market": "m",
                "date": "2024-08-08",
                "symbol": "A",
                "digest": "d",
                "simulated": False,
                "profile": None,
                "silences": [],
            }
        ],
        "spec": FeatureSpec().model_dump(mode="json"),
    }


def test_a_value_without_a_content_key_is_refused() -> None:
    with pytest.raises(ConfigError, match="given a object, which has no content key"):
        canonical(object())


def test_key_changes_with_each_input_and_not_with_the_run() -> None:
    base = stage_key(LABELS, {"table": ref(), "spec": FeatureSpec(), "run": 1})
    assert base == stage_key(LABELS, {"table": ref("/moved"), "spec": FeatureSpec(), "run": 2})
    changed = FeatureSpec(horizon_ms=50.0)
    assert base != stage_key(LABELS, {"table": ref(), "spec": changed, "run": 1})
    assert base != stage_key(
        "model_code.training.metrics", {"table": ref(), "spec": FeatureSpec(), "run": 1}
    )


@pytest.mark.parametrize(
    ("changed", "moves"), [("top", True), ("middle", True), ("low", True), ("unrelated", False)]
)
def test_fingerprint_follows_imports_and_nothing_else(
    sample: Path, changed: str, moves: bool
) -> None:
    before = source_fingerprint("sample.top")
    (sample / f"{changed}.py").write_text((sample / f"{changed}.py").read_text() + "z = 2\n")
    source_fingerprint.cache_clear()
    assert (source_fingerprint("sample.top") != before) is moves


def test_a_stage_depends_on_what_it_imports_and_not_on_bookkeeping() -> None:
    closure = import_closure("tasks.nightly.benchmark")
    assert {
        "tasks.nightly.benchmark",
        "infra.triton.benchmark_row",
        "model_code.benchmark.measure",
        "model_code.settings.contract",
    } <= set(closure)
    assert not [name for name in closure if name.startswith(("tasks.caching", "tasks.runs"))]


@pytest.mark.parametrize(
    ("stage", "module"),
    [
        ("validate", "tasks.validation.expectations"),  # imported inside a function
        ("features", "model_code.features.kernel"),
        ("train", "model_code.training.loop"),
        ("build_engine", "model_code.engines.openvino_engine"),  # through the registry
        ("gate", "model_code.benchmark.significance"),
    ],
)
def test_stages_depend_on_the_library_code_they_call(stage: str, module: str) -> None:
    assert module in import_closure(f"tasks.nightly.{stage}")


@pytest.mark.parametrize(
    ("stage", "module"),
    [
        ("validate", "model_code.training.loop"),
        ("features", "model_code.engines.registry"),
        ("train", "model_code.benchmark.measure"),
        ("train", "tasks.nightly.gate"),
    ],
)
def test_stages_do_not_depend_on_later_ones(stage: str, module: str) -> None:
    assert module not in import_closure(f"tasks.nightly.{stage}")


def test_environment_names_libraries_and_processor() -> None:
    found = environment()
    assert "torch==" in found
    assert processor() in found
