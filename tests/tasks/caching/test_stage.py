import datetime as dt
import importlib
import sys
from pathlib import Path

import pytest
from prefect import flow

from model_code.artifacts import ArtifactRef
from model_code.errors import ConfigError
from model_code.machine import processor
from model_code.settings import FeatureSpec, Settings
from tasks.caching import stage as stages
from tasks.caching.fingerprint import canonical, environment, source_fingerprint, stage_key
from tasks.caching.stage import RunRef, stage
from tasks.nightly.benchmark import benchmark
from tasks.nightly.export import CALIBRATION, export
from tasks.nightly.records import Record, SourceDay


def ref(path: str = "/somewhere", sha256: str = "ab") -> ArtifactRef:
    return ArtifactRef(name="a", path=path, sha256=sha256)


def test_artefact_is_its_content_not_its_path() -> None:
    assert canonical(ref("/here")) == canonical(ref("/there"))
    assert canonical(ref(sha256="ab")) != canonical(ref(sha256="cd"))


def test_models_dates_and_sequences_are_reduced_to_plain_values() -> None:
    day = SourceDay(market="m", date=dt.date(2024, 8, 8), symbol="A", digest="d", simulated=False)
    assert canonical({"days": (day,), "spec": FeatureSpec()}) == {
        "days": [
            {"market": "m", "date": "2024-08-08", "symbol": "A", "digest": "d", "simulated": False}
        ],
        "spec": FeatureSpec().model_dump(),
    }


def test_a_value_without_content_is_refused_rather_than_uncached() -> None:
    with pytest.raises(ConfigError, match="given a object, which has no content key"):
        canonical(object())


def test_key_changes_with_each_input_and_not_with_the_run() -> None:
    code = ["model_code.features.labels"]
    base = stage_key(code, {"table": ref(), "spec": FeatureSpec(), "run": 1})
    assert base == stage_key(code, {"table": ref("/moved"), "spec": FeatureSpec(), "run": 2})
    assert base != stage_key(code, {"table": ref(), "spec": FeatureSpec(horizon_ms=50.0), "run": 1})
    assert base != stage_key(
        ["model_code.training.metrics"], {"table": ref(), "spec": FeatureSpec()}
    )
    assert base != stage_key(code, {"table": ref(), "spec": FeatureSpec()}, own="def f(): ...")


def test_code_version_follows_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "sample"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "top.py").write_text("from sample import middle\n")
    (package / "middle.py").write_text("import json\nfrom sample.low import x\n")
    (package / "low.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(stages, "FIRST_PARTY", ("sample",))
    source_fingerprint.cache_clear()
    before = source_fingerprint("sample.top")
    (package / "low.py").write_text("x = 2\n")
    source_fingerprint.cache_clear()
    after = source_fingerprint("sample.top")
    source_fingerprint.cache_clear()
    assert before != after
    for name in [name for name in sys.modules if name.split(".")[0] == "sample"]:
        del sys.modules[name]


def test_environment_names_libraries_and_processor() -> None:
    found = environment()
    assert "torch==" in found
    assert processor() in found


class Doubled(Record):
    value: int


def test_same_inputs_come_back_cached_as_the_same_record(home: Settings) -> None:
    calls: list[int] = []

    @stage("double")
    def double(run: RunRef, number: int) -> Doubled:
        calls.append(number)
        return Doubled(value=2 * number)

    @flow
    def twice(run: RunRef) -> tuple[list[str], Doubled]:
        states = [double(run, 4, return_state=True) for _ in range(2)]
        return [str(state.name) for state in states], states[1].result()

    run = RunRef(settings=home, mlflow_run_id="m", flow_run_id="f")
    names, value = twice(run)
    assert names == ["Completed", "Cached"]
    assert calls == [4]
    assert value == Doubled(value=8)
    stored = [path.read_text() for path in (home.home / "results").rglob("double-*")]
    assert len(stored) == 1
    assert '"type":"json"' in stored[0].replace(" ", "")  # never a pickle


def test_a_stage_that_fails_is_not_cached(home: Settings) -> None:
    calls: list[int] = []

    @stage("fragile")
    def fragile(run: RunRef, number: int) -> int:
        calls.append(number)
        if len(calls) == 1:
            raise ValueError("first time")
        return number

    @flow
    def go(run: RunRef) -> list[str]:
        return [str(fragile(run, 1, return_state=True).name) for _ in range(3)]

    assert go(RunRef(settings=home, mlflow_run_id="m", flow_run_id="f")) == [
        "Failed", "Completed", "Cached",
    ]  # fmt: skip


def test_key_changes_with_helpers_constants_and_modules_beside_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    text = (
        "import json\n"
        "from model_code import metrics\n"
        "from tasks.results import Record\n"
        "MANY = {'one': 3}\n"
        "def half(x):\n    return x / MANY['one']\n"
        "def unused():\n    return 1\n"
        "def work(x):\n    return [json.dumps(half(y)) for y in x], metrics, Record\n"
    )

    def reached(name: str, source: str) -> tuple[str, tuple[str, ...]]:
        (tmp_path / f"{name}.py").write_text(source)
        return source_fingerprint(importlib.import_module(name).work)

    first, modules = reached("before", text)
    assert modules == ("model_code.training.metrics", "tasks.nightly.records")
    assert reached("same", text.replace("return 1", "return 2"))[0] == first
    assert reached("helper", text.replace("x / ", "x // "))[0] != first
    assert reached("constant", text.replace("3}", "4}"))[0] != first
    for name in ("before", "same", "helper", "constant"):
        del sys.modules[name]


def test_a_stage_names_what_its_helpers_use() -> None:
    _, modules = source_fingerprint(benchmark.fn)
    assert {
        "infra.triton.benchmark_row",
        "tasks.nightly.records",
        "model_code.benchmark.measure",
    } <= set(modules)
    own, _ = source_fingerprint(export.fn)
    assert f"CALIBRATION = {CALIBRATION}" in own
    assert "def _spread" in own


@pytest.mark.parametrize("left", ["", '{"metadata": {"stor'])
def test_a_result_cut_short_is_computed_again(home: Settings, left: str) -> None:
    calls: list[int] = []

    @stage("cut")
    def cut(run: RunRef, number: int) -> int:
        calls.append(number)
        return number

    @flow
    def go(run: RunRef) -> str:
        return str(cut(run, 5, return_state=True).name)

    run = RunRef(settings=home, mlflow_run_id="m", flow_run_id="f")
    assert go(run) == "Completed"
    (record,) = (home.home / "results").glob("cut-*")
    record.write_text(left)
    assert go(run) == "Completed"
    assert calls == [5, 5]
    assert go(run) == "Cached"
