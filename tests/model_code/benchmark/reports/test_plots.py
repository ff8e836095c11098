from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import image

from model_code.benchmark.reports import plots
from model_code.benchmark.result import BenchmarkRun
from model_code.errors import StorageError
from tests.support.benchmark import benchmark_run


@pytest.fixture(scope="module")
def run() -> BenchmarkRun:
    random = np.random.default_rng(0)
    probability = random.uniform(size=500)
    label = (random.uniform(size=500) < probability).astype(np.int8)
    poisoned = np.where(np.arange(500) == 7, np.nan, probability)
    names = ("torch-fp32", "openvino-fp32")
    latency = {name: random.gamma(9, 0.2, 100) + 0.5 for name in names}
    answers = {"torch-fp32": probability, "openvino-fp32": poisoned}
    return benchmark_run(label, answers, latency)


def ink(path) -> int:
    """Pixels that are not white."""
    pixels = image.imread(path)
    assert pixels.shape[:2] == (600, 864)
    return int((pixels[..., :3].min(axis=2) < 0.9).sum())


def test_every_plot_of_a_benchmark_is_drawn(run, tmp_path):
    paths = plots.draw_benchmark(run, tmp_path)
    assert set(paths) == {
        "latency_ecdf",
        "throughput",
        "accuracy_latency",
        "roc",
        "precision_recall",
        "calibration",
    }
    inks = {name: ink(path) for name, path in paths.items()}
    assert min(inks.values()) > 3000
    assert len(set(inks.values())) == 6


def test_the_learning_curve_takes_one_epoch_and_many(tmp_path):
    epochs = [
        SimpleNamespace(
            epoch=i, train_loss=0.6 / i, validation_loss=0.6, validation_auc=0.5 + i / 9
        )
        for i in (1, 2, 3)
    ]
    one = plots.learning_curve(epochs[:1], tmp_path / "one.png")
    many = plots.learning_curve(epochs, tmp_path / "many.png")
    assert 3000 < ink(one) < ink(many)


def test_a_plot_that_cannot_be_written_is_a_storage_error(run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        plots.latency_ecdf(run.latency_ms_R, tmp_path / "file" / "a.png")
