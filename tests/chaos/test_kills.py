"""SIGKILL in every stage of a nightly, then the rerun."""

import pytest

from tests.chaos.contents import result_of
from tests.chaos.harness import EPOCHS, Home, Prepared, Row, cached_after, same_run

STAGES = (
    "find days", "validate", "publish_validation", "features", "feature table", "split",
    "baseline", "train", "export", "build engine", "find champion", "benchmark", "gate", "register",
    "record requests", "stage candidate", "publish_outcome", "announce",
)  # fmt: skip


@pytest.mark.fast
def test_nightly_completes_after_several_faults(
    disturbed: Home, undisturbed: Home, prepared: Prepared
) -> None:
    disturbed.prepared = prepared
    starved = disturbed.nightly("memory@train")
    prepared.prepare()
    assert starved.end() != 0, starved.text
    before = disturbed.parent_ids()

    killed = disturbed.rerun("pause@train", "kill@register")
    prepared.prepare()
    paused = disturbed.paused(killed)
    said = disturbed.refused("nightly", "--spec", str(disturbed.spec))
    assert f"another nightly is running (pid {killed.process.pid})" in said
    paused.unlink()
    killed.die()
    assert "machine" in disturbed.why()

    disturbed.rerun().succeed()
    stops = ("train", "register")
    disturbed.compare(undisturbed, interrupted=stops)
    cached_after(stops, disturbed, undisturbed)
    assert same_run(before, disturbed.parent_ids()) == "same MLflow run"


def test_killed_in_every_stage(disturbed: Home, undisturbed: Home, table: list[Row]) -> None:
    disturbed.nightly(f"kill@{STAGES[0]}").die()
    runs_before, seconds = [disturbed.parent_ids()], []
    for stage in STAGES[1:]:
        seconds.append(disturbed.rerun(f"kill@{stage}").die())
        runs_before.append(disturbed.parent_ids())
    seconds.append(disturbed.rerun().succeed())
    disturbed.compare(undisturbed, interrupted=STAGES)
    cached = cached_after(STAGES, disturbed, undisturbed)
    run = disturbed.parent_ids()
    for stage, before, told, took in zip(STAGES, runs_before, cached, seconds, strict=True):
        table.append(Row(f"SIGKILL in `{stage}`", f"{told}; {same_run(before, run)}", took))


def test_killed_between_two_epochs(disturbed: Home, undisturbed: Home, table: list[Row]) -> None:
    disturbed.nightly("epoch@train").die()
    kept = max(int(path.stem[-4:]) for path in disturbed.settings.checkpoints.rglob("epoch-*.pt"))
    took = disturbed.rerun().succeed()
    disturbed.compare(undisturbed)
    (training,) = [run for run in disturbed.runs() if run.info.run_name == "training"]
    points = disturbed.mlflow.get_metric_history(training.info.run_id, "train/loss")
    assert sorted(point.step for point in points) == list(range(1, EPOCHS + 1))
    assert result_of(disturbed.settings, "train")["resumed_from"] == kept
    (cached,) = cached_after(("train",), disturbed, undisturbed)
    happened = f"training resumed at epoch {kept + 1} of {EPOCHS}; {cached}"
    table.append(Row("SIGKILL between epochs", happened, took))
