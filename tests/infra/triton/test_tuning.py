"""Settings of the real server, changed under measurement."""

from pathlib import Path

import psutil
import pytest

from infra.triton.tuning import tuning_bench
from model_code.engines.sidecar import EngineSidecar
from model_code.errors import ServingError
from model_code.repository.manifest import CONFIG_FILE
from model_code.repository.requests import GOLDEN_FILE, GoldenSet
from model_code.repository.triton_config import parse
from model_code.settings import MODEL_NAME, ServingSpec, Settings
from tests.support.serving import staged, windows


def test_each_setting_serves_and_is_measured(tmp_path: Path, triton_home: Path) -> None:
    settings = Settings(home=tmp_path / "home", triton=triton_home)
    folder = staged(settings.staging_repository, 1)
    known = GoldenSet.load(folder / GOLDEN_FILE)
    wrong = GoldenSet(known.x_NTF, known.logits_NC + 1, known.tolerance)
    two = ServingSpec(instances=2, queue_delay_us=0, preferred_batch_sizes=(), threads=1)
    processes: list[int] = []
    with tuning_bench(settings, folder, EngineSidecar.load(folder), known) as bench:
        for serving in (ServingSpec(), two):
            found = bench.measure(serving, windows(), 100.0, 0.5)
            assert 0 < found.p50_ms <= found.p99_ms
            assert found.processor_us > 0
            assert found.unanswered == 0
            config = parse((bench.server.repository / MODEL_NAME / CONFIG_FILE).read_text())
            assert config.instance_group[0].count == serving.instances
            processes.append(len(psutil.Process(bench.server.pid).children(recursive=True)))
    assert processes[1] == processes[0] + 1, "a process for each instance"
    with (
        tuning_bench(settings, folder, EngineSidecar.load(folder), wrong) as bench,
        pytest.raises(ServingError, match="answered wrongly"),
    ):
        bench.apply(two)
    assert not list((settings.home / "triton").glob("engine-*"))
