"""What the evidence says about the version that the gate compared with."""

import numpy as np
import pytest

from model_code.benchmark.result import BenchmarkResult
from model_code.repository.manifest import Manifest
from model_code.settings import CHAMPION_ROW
from tasks.promotion.evidence import Evidence, render, summary
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
