"""Judging rivals on several dates: figures, paired intervals, refusals, tables."""

import numpy as np
import pytest
from sklearn import metrics as sk

from model_code.benchmark.reports import walkforward_report as report
from model_code.benchmark.reports.walkforward_report import Walk
from model_code.benchmark.walkforward import Judgement, Pool, Rival, date_aucs, judge
from model_code.errors import DataError

DAY_NS = 86_400_000_000_000


def market(dates: int = 4, windows: int = 1500, seed: int = 0) -> tuple[Pool, np.ndarray]:
    """Two instruments; the signal of each window, from which its label is drawn."""
    rng = np.random.default_rng(seed)
    n = dates * windows
    signal_N = rng.normal(size=n)
    label_N = (rng.random(n) < 1 / (1 + np.exp(1.0 - signal_N))).astype(np.int8)
    day_N = np.repeat(np.arange(20_000, 20_000 + dates), windows)
    within_N = np.concatenate([np.sort(rng.integers(0, DAY_NS, windows)) for _ in range(dates)])
    pool = Pool(
        label_N=label_N,
        timestamp_ns_N=day_N * DAY_NS + within_N,
        symbol_N=rng.choice(np.array(["A", "B"]), n),
        earned_bps_N=np.where(label_N == 1, 2.0, -1.0),
    )
    return pool, signal_N


def rival(name: str, score_N: np.ndarray, against: str = "boosting") -> Rival:
    probability_N = 1 / (1 + np.exp(1.0 - score_N))
    return Rival(name, "paired", against, probability_N, probability_N >= 0.5, 1.5)


@pytest.fixture(scope="module")
def judged() -> tuple[Pool, list[Rival], Judgement]:
    pool, signal_N = market()
    noise_N = np.random.default_rng(9).normal(size=len(signal_N))
    rivals = [
        rival("model", signal_N),
        rival("boosting", signal_N + 0.8 * noise_N),
        rival("twin", signal_N + 0.8 * noise_N),
        Rival("never", "paired", "boosting", np.full(len(signal_N), 0.3), signal_N > 99, 0.0),
    ]
    return pool, rivals, judge(pool, rivals, resamples=200)


def test_figures_are_those_of_all_windows(judged) -> None:
    pool, rivals, found = judged
    assert (found.windows, found.instruments) == (6000, ("A", "B"))
    assert found.dates == ("2024-10-04", "2024-10-05", "2024-10-06", "2024-10-07")
    assert found.base_rate == pytest.approx(pool.label_N.mean())
    assert found.all_profit_bps == pytest.approx(pool.earned_bps_N.mean())
    row, own = found.rows[0], rivals[0]
    assert row.auc == pytest.approx(sk.roc_auc_score(pool.label_N, own.probability_N))
    assert row.average_precision == pytest.approx(
        sk.average_precision_score(pool.label_N, own.probability_N)
    )
    assert row.brier == pytest.approx(np.mean((own.probability_N - pool.label_N) ** 2))
    assert row.log_loss == pytest.approx(sk.log_loss(pool.label_N, own.probability_N))
    assert row.decided == pytest.approx(own.decided_N.mean())
    assert row.precision == pytest.approx(pool.label_N[own.decided_N].mean())
    assert row.profit_bps == pytest.approx(pool.earned_bps_N[own.decided_N].mean())
    assert row.auc_difference == pytest.approx(row.auc - found.row("boosting").auc)
    assert row.ahead == 2
    first = pool.timestamp_ns_N // DAY_NS == 20_000
    assert len(row.date_aucs) == 4
    assert row.date_aucs[0] == pytest.approx(
        sk.roc_auc_score(pool.label_N[first], own.probability_N[first])
    )


def test_a_date_of_one_class_has_no_auc() -> None:
    pool, signal_N = market(dates=2)
    pool.label_N[:1500] = 0
    none, some = date_aucs(pool, 1 / (1 + np.exp(-signal_N)))
    assert none is None
    assert some is not None


def test_a_better_model_is_ahead_with_its_interval_and_an_equal_one_is_not(judged) -> None:
    _, _, found = judged
    better, twin = found.row("model"), found.row("twin")
    assert better.auc_difference_interval is not None
    assert better.auc_difference_interval.low > 0
    assert better.average_precision_difference_interval is not None
    assert better.average_precision_difference_interval.low > 0
    assert twin.auc_difference_interval is not None
    assert twin.auc_difference_interval.low == twin.auc_difference_interval.high == 0.0
    assert twin.ahead == 0
    for row in found.rows:
        assert row.auc_interval is not None
        assert row.auc_interval.low <= row.auc <= row.auc_interval.high
    itself = found.row("boosting")
    assert itself.auc_difference is None
    assert itself.auc_difference_interval is None
    assert itself.ahead is None


def test_without_a_decision_there_is_neither_precision_nor_profit(judged) -> None:
    _, _, found = judged
    never = found.row("never")
    assert (never.precision, never.profit_bps, never.decided) == (None, None, 0.0)
    assert never.auc == 0.5


def test_the_order_of_the_windows_and_of_the_rivals_changes_nothing(judged) -> None:
    pool, rivals, found = judged
    mixed = np.random.default_rng(1).permutation(len(pool.label_N))
    other = Pool(*(getattr(pool, name)[mixed] for name in Pool.__dataclass_fields__))
    moved = [
        Rival(
            each.name, each.inputs, each.against, each.probability_N[mixed],
            each.decided_N[mixed], each.seconds,
        )
        for each in rivals
    ]  # fmt: skip
    again = judge(other, moved, resamples=200)
    for one, two in zip(found.rows, again.rows, strict=True):
        assert two.auc == pytest.approx(one.auc)
        assert two.auc_interval is not None
        assert one.auc_interval is not None
        assert two.auc_interval.low == pytest.approx(one.auc_interval.low)


def test_days_that_differ_widen_the_interval() -> None:
    pool, signal_N = market(dates=6)
    day_N = pool.timestamp_ns_N // DAY_NS
    sign_N = np.where(day_N % 2 == 0, 1.0, 0.1)  # the signal fades on every other day
    rivals = [rival("model", signal_N * sign_N, "model")]
    widths = []
    for dates in (6, 1):
        stamps_N = (
            pool.timestamp_ns_N
            if dates == 6
            else 20_000 * DAY_NS + np.argsort(np.argsort(pool.timestamp_ns_N)) * 1000
        )
        shuffled = Pool(pool.label_N, stamps_N, pool.symbol_N, pool.earned_bps_N)
        found = judge(shuffled, rivals, resamples=200).rows[0].auc_interval
        assert found is not None
        widths.append(found.high - found.low)
    assert widths[0] > 1.2 * widths[1]


@pytest.mark.parametrize("dates", [1, 5])
def test_intervals_cover_the_true_difference_of_equal_models(dates: int) -> None:
    inside = 0
    for seed in range(40):
        pool, signal_N = market(dates=dates, windows=400, seed=seed)
        noise = np.random.default_rng(1000 + seed)
        one_N, two_N = (signal_N + noise.normal(size=len(signal_N)) for _ in range(2))
        found = judge(pool, [rival("one", one_N, "two"), rival("two", two_N, "two")], resamples=200)
        gap = found.rows[0].auc_difference_interval
        assert gap is not None
        inside += gap.low <= 0 <= gap.high
    assert inside >= 34  # of 40, nominally 38


def test_an_instrument_with_one_class_is_not_counted() -> None:
    pool, signal_N = market(dates=2, windows=300)
    label_N = np.where(pool.symbol_N == "B", 0, pool.label_N).astype(np.int8)
    other = Pool(label_N, pool.timestamp_ns_N, pool.symbol_N, pool.earned_bps_N)
    found = judge(other, [rival("model", signal_N), rival("boosting", -signal_N)], resamples=20)
    assert found.instruments == ("A",)
    assert found.rows[0].ahead == 1


def test_one_class_is_refused() -> None:
    pool, signal_N = market(dates=1, windows=100)
    none = Pool(np.zeros(100, np.int8), pool.timestamp_ns_N, pool.symbol_N, pool.earned_bps_N)
    with pytest.raises(DataError, match="one class only"):
        judge(none, [rival("model", signal_N, "model")], resamples=10)


def walk(judgement: Judgement, **changes: object) -> Walk:
    values: dict[str, object] = {
        "judgement": judgement,
        "newest": "2024-10-07",
        "seed_aucs": (0.71, 0.73),
        "boosting_auc": 0.7,
        "shuffled_aucs": (0.49, 0.5, 0.51, 0.52, 0.48),
        "label": "executable-roundtrip",
        "horizon_ms": 100.0,
        "cost_bps": 0.0,
        "delay_ms": 0.25,
        "skipped": ("2024-10-03 skipped: one class",),
        "notes": ("a note",),
        "simulated": False,
    }
    return Walk.model_validate(values | changes)


def test_tables_fit_80_columns_and_the_last_line_is_exact(judged) -> None:
    _, _, found = judged
    done = walk(found)
    row, other = found.rows[0], found.row("boosting")
    assert row.auc_difference_interval is not None
    assert report.last_line(done) == (
        f"pooled: AUC {row.auc:.4f}, boosting {other.auc:.4f}, "
        f"difference {row.auc - other.auc:.4f} (95% {row.auc_difference_interval.low:.4f}.."
        f"{row.auc_difference_interval.high:.4f}), instruments ahead 2 of 2"
    )
    for sheet in report.sheets(done):
        cells = [sheet.columns, *sheet.rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        assert sum(widths) + len(widths) + 2 + len("conv-transformer solo") - len("boosting") <= 80
        assert {len(line) for line in cells} == {len(sheet.columns)}
    page = report.markdown(done)
    for piece in (
        "AUC over 6,000 windows of 4 dates, 2024-10-04 to 2024-10-07",
        "- 2024-10-03 skipped: one class",
        "0.25 ms late",
        "| model, 2 seeds | 0.7200 | 0.7100..0.7300 |",
        "| shuffled labels | 0.5000 | 0.4804..0.5196 |",
        report.last_line(done),
    ):
        assert piece in page
    assert "SIMULATED" not in page
    assert "SIMULATED" in report.markdown(walk(found, simulated=True))


def test_shuffled_labels_that_rank_windows_are_shouted(judged) -> None:
    _, _, found = judged
    assert not walk(found).leaks
    leaking = walk(found, shuffled_aucs=(0.61, 0.6, 0.62))
    assert leaking.leaks
    assert "look for a leak" in report.markdown(leaking)
    without = walk(found, shuffled_aucs=())
    assert not without.leaks
    assert "shuffled labels" not in report.markdown(without)
    assert walk(found, shuffled_aucs=(0.9,)).shuffled_interval is None


def test_pictures_and_metrics(judged, tmp_path) -> None:
    pool, rivals, found = judged
    for path in (
        report.draw_aucs(found, tmp_path / "auc.png"),
        report.draw_calibration(pool, rivals[:2], tmp_path / "calibration.png"),
    ):
        assert path.read_bytes().startswith(b"\x89PNG")
    values = report.metrics(found.rows[0])
    assert values["auc"] == found.rows[0].auc
    assert values["auc_difference_interval_low"] < values["auc_difference_interval_high"]  # type: ignore[operator]
    assert "name" not in values
    assert "profit_bps" not in report.metrics(found.row("never"))
