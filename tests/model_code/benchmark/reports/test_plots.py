from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

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


def test_the_candidates_plots_are_of_the_chosen_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    label, answers = np.arange(40) % 2, np.linspace(0.1, 0.9, 40)
    names = ("torch-fp32", "openvino-int8", "champion")
    probability = {name: answers + 0.01 * i for i, name in enumerate(names)}
    latency = {name: np.linspace(1.0, 2.0, 40) for name in names}
    run = benchmark_run(label.astype(np.int8), probability, latency, boosting_N=answers)
    drawn = {}
    real = plots.calibration

    def calibration(label_N, probability_N, *rest):
        drawn.update(probability_N)
        return real(label_N, probability_N, *rest)

    monkeypatch.setattr(plots, "calibration", calibration)
    paths = plots.draw_candidate(run, "openvino-int8", tmp_path)
    assert list(paths) == ["calibration", "precision_recall", "roc", "latency_ecdf"]
    assert min(ink(path) for path in paths.values()) > 3000
    assert list(drawn) == ["candidate", "champion", "gradient boosting"]
    np.testing.assert_array_equal(drawn["candidate"], probability["openvino-int8"])
    assert plots.draw_candidate(run, "onnxruntime-fp32", tmp_path) == {}, "not measured"


def test_an_engine_whose_answers_are_not_finite_has_no_plots(run, tmp_path):
    assert plots.draw_candidate(run, "openvino-fp32", tmp_path) == {}


def test_latencies_far_apart_keep_readable_ticks(tmp_path, monkeypatch: pytest.MonkeyPatch):
    seen = {}

    def keep(path, draw):
        figure = Figure()
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        draw(axes)
        figure.canvas.draw()
        seen[path.name] = [text for one in axes.get_xticklabels() if (text := one.get_text())]
        return path

    monkeypatch.setattr(plots, "plot", keep)
    near, far = np.linspace(0.6, 0.9, 50), np.linspace(4.0, 30.0, 50)
    plots.latency_ecdf({"a": near}, tmp_path / "near.png")
    plots.latency_ecdf({"a": near, "b": far}, tmp_path / "far.png")
    assert len(seen["near.png"]) >= 3
    assert {"1", "2", "5", "10", "20"} <= set(seen["far.png"])


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
