"""SIGKILL in every stage of a nightly, then the rerun."""

import pytest

from tests.chaos.harness import Home, Row

STAGES = (
    "find days", "validate", "publish_validation", "features", "split", "baseline", "train",
    "export", "build engine", "find champion", "benchmark", "gate", "register",
    "record requests", "stage", "publish_outcome", "announce candidate",
)  # fmt: skip


def killed_in(stages: tuple[str, ...], home: Home) -> list[float]:
    """Kill one night in one stage after the other; seconds each rerun lived until it was over."""
    home.nightly(("kill", stages[0])).die()
    seconds = []
    for stage in stages[1:]:
        again = home.rerun(("kill", stage))
        again.die()
        seconds.append(again.seconds)
    seconds.append(home.rerun().succeed())
    return seconds


@pytest.mark.fast
def test_one_night_beset_by_several_faults(disturbed: Home, undisturbed: Home) -> None:
    disturbed.nightly(("kill", "features")).die()

    second = disturbed.rerun(("signal", "split"))
    reached = disturbed.reached(second)
    assert "another nightly is at work" in disturbed.nightly().fail()
    second.process.kill()
    second.die()
    reached.unlink()

    starved = disturbed.rerun(("memory", "train"))
    assert starved.end() != 0, starved.text
    disturbed.rerun(("kill", "register")).die()
    assert "machine" in disturbed.why()
    disturbed.rerun().succeed()
    disturbed.compare(undisturbed)


def test_killed_in_every_stage(disturbed: Home, undisturbed: Home, table: list[Row]) -> None:
    seconds = killed_in(STAGES, disturbed)
    disturbed.compare(undisturbed)
    for stage, took in zip(STAGES, seconds, strict=True):
        table.append(Row(f"SIGKILL in `{stage}`", "stages before it Cached, same MLflow run", took))


def test_killed_between_two_epochs(disturbed: Home, undisturbed: Home, table: list[Row]) -> None:
    disturbed.nightly(("epoch", "train")).die()
    again = disturbed.rerun()
    took = again.succeed()
    disturbed.compare(undisturbed)
    (training,) = [run for run in disturbed.runs() if run.info.run_name == "training"]
    points = disturbed.mlflow.get_metric_history(training.info.run_id, "train_loss")
    assert [point.step for point in points] == [1, 2, 3, 4]
    table.append(Row("SIGKILL between epochs", "training went on at its next epoch", took))
