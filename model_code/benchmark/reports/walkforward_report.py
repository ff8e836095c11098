"""A walk forward as tables of 80 columns, as Markdown, as pictures, and as one line."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from pydantic import BaseModel, ConfigDict
from scipy import stats
from sklearn.calibration import calibration_curve

from model_code.benchmark.reports.plots import BINS, COLOURS, plot
from model_code.benchmark.reports.report import SIMULATED
from model_code.benchmark.reports.sheet import NONE, Sheet
from model_code.benchmark.significance import Interval
from model_code.benchmark.walkforward import CONFIDENCE, Judgement, Pool, Rival, RivalRow


class Walk(BaseModel):
    """What a walk forward found.

    Attributes:
        judgement: every rival over all dates.
        newest: the newest test date, of the checks below.
        seed_aucs: AUC of the model there, one for each seed; the first is the walk's own.
        boosting_auc: of the tuned boosting there.
        shuffled_aucs: of boosting fitted to shuffled labels there, one for each shuffle.
        label: what counts as an opportunity.
        horizon_ms: of the label, and from decision to the latest exit of the profit bound.
        cost_bps: charged in label and profit bound.
        delay_ms: from decision to trade in the profit bound.
        skipped: dates that could not be judged, and why.
        notes: about the ticks, for the reader.
        simulated: whether any ticks are simulated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    judgement: Judgement
    newest: str
    seed_aucs: tuple[float, ...]
    boosting_auc: float
    shuffled_aucs: tuple[float, ...]
    label: str
    horizon_ms: float
    cost_bps: float
    delay_ms: float
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    simulated: bool

    @property
    def shuffled_interval(self) -> tuple[float, float] | None:
        """95% interval of the mean over shuffles (Student's t); None with fewer than two."""
        count = len(self.shuffled_aucs)
        if count < 2:
            return None
        mean, deviation = np.mean(self.shuffled_aucs), np.std(self.shuffled_aucs, ddof=1)
        reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1) * deviation / np.sqrt(count))
        return float(mean) - reach, float(mean) + reach

    @property
    def leaks(self) -> bool:
        """Whether boosting ranks windows although its labels were shuffled."""
        return self.shuffled_interval is not None and self.shuffled_interval[0] > 0.5


def sheets(walk: Walk) -> tuple[Sheet, ...]:
    """All tables; each fits a terminal of 80 columns."""
    return _ranking(walk), _precision(walk), _decisions(walk), _checks(walk)


def last_line(walk: Walk) -> str:
    """The model against tuned boosting on the same inputs, over all windows."""
    judgement = walk.judgement
    row = judgement.rows[0]
    other = judgement.row(row.against)
    return (
        f"pooled: AUC {row.auc:.4f}, boosting {other.auc:.4f}, "
        f"difference {row.auc_difference:.4f} (95% {_range(row.auc_difference_interval)}), "
        f"instruments ahead {row.ahead} of {len(judgement.instruments)}"
    )


def markdown(walk: Walk) -> str:
    """All tables, notes and the last line."""
    notes = [f"- {note}" for note in (*walk.skipped, *walk.notes)]
    text = "\n".join(sheet.markdown() for sheet in sheets(walk))
    return "\n".join(
        [(SIMULATED if walk.simulated else "") + text, *notes, "", last_line(walk), ""]
    )


def draw_aucs(judgement: Judgement, path: Path) -> Path:
    """AUC of every rival with its 95% interval."""

    def draw(axes: Axes) -> None:
        for place, row in enumerate(reversed(judgement.rows)):
            found = row.auc_interval
            if found is not None:
                axes.plot([found.low, found.high], [place, place], color="0.5", linewidth=2)
            axes.plot(row.auc, place, "o", color=COLOURS[2])
        axes.axvline(0.5, color="0.5", linewidth=1, linestyle="--")
        axes.set_yticks(range(len(judgement.rows)), [row.name for row in reversed(judgement.rows)])
        axes.set(title=f"AUC over {judgement.windows:,} windows, 95% intervals", xlabel="AUC")

    return plot(path, draw)


def draw_calibration(pool: Pool, rivals: Sequence[Rival], path: Path) -> Path:
    """Observed rate against predicted probability, in equally filled bins."""

    def draw(axes: Axes) -> None:
        top = 0.0
        for rival, colour in zip(rivals, COLOURS[2:], strict=False):
            observed, predicted = calibration_curve(
                pool.label_N, rival.probability_N, n_bins=BINS, strategy="quantile"
            )
            axes.plot(predicted, observed, color=colour, marker="o", label=rival.name)
            top = max(top, float(observed.max()), float(predicted.max()))
        axes.plot([0, top], [0, top], color="0.5", linewidth=1, linestyle="--", label="perfect")
        axes.set(
            title="Calibration over all test dates",
            xlabel="predicted probability",
            ylabel="observed rate",
        )
        axes.legend(loc="upper left")

    return plot(path, draw)


def metrics(row: RivalRow) -> dict[str, float | None]:
    """A rival's figures by name, intervals as their ends, for MLflow."""
    found: dict[str, float | None] = {}
    for name in RivalRow.model_fields:
        value = getattr(row, name)
        if isinstance(value, Interval):
            found |= {f"{name}_low": value.low, f"{name}_high": value.high}
        elif isinstance(value, int | float):
            found[name] = float(value)
    return found


def _ranking(walk: Walk) -> Sheet:
    judgement = walk.judgement
    rows = tuple(
        (
            row.name,
            f"{row.auc:.4f}",
            _range(row.auc_interval, 3),
            _signed(row.auc_difference),
            _range(row.auc_difference_interval),
            NONE if row.ahead is None else f"{row.ahead}/{len(judgement.instruments)}",
        )
        for row in judgement.rows
    )
    dates = f"{judgement.dates[0]} to {judgement.dates[-1]}"
    return Sheet(
        f"AUC over {judgement.windows:,} windows of {_dates(judgement)}, {dates}"
        + (" (SIMULATED)" if walk.simulated else ""),
        ("model", "AUC", "95%", "diff.", "95%", "ahead"),
        rows,
        "diff.: to tuned boosting on the same inputs. ahead: instruments of all.",
    )


def _precision(walk: Walk) -> Sheet:
    rows = tuple(
        (
            row.name,
            f"{row.average_precision:.4f}",
            _range(row.average_precision_interval),
            _signed(row.average_precision_difference),
            _range(row.average_precision_difference_interval),
        )
        for row in walk.judgement.rows
    )
    return Sheet(
        "Average precision",
        ("model", "AP", "95%", "diff.", "95%"),
        rows,
        f"Guessing has the base rate, {walk.judgement.base_rate:.4f}.",
    )


def _decisions(walk: Walk) -> Sheet:
    rows = tuple(
        (
            row.name,
            f"{row.log_loss:.4f}",
            f"{row.brier:.4f}",
            f"{row.calibration_error:.4f}",
            NONE if row.precision is None else f"{row.precision:.3f}",
            f"{row.decided:.2%}",
            NONE if row.profit_bps is None else f"{row.profit_bps:.2f}",
            f"{row.seconds:.0f}",
        )
        for row in walk.judgement.rows
    )
    everything = walk.judgement.all_profit_bps
    return Sheet(
        "Probabilities and decisions",
        ("model", "log loss", "Brier", "calib.", "precis.", "decided", "bps", "s"),
        rows,
        f"bps: best case of a decision, {walk.delay_ms:.2f} ms late, closed within "
        f"{walk.horizon_ms:g} ms, cost {walk.cost_bps:g} bps;\n"
        f"acting on every window: {everything:.2f}. s: all fits and predictions.",
    )


def _checks(walk: Walk) -> Sheet:
    seeds, shuffled = walk.seed_aucs, walk.shuffled_aucs
    name = walk.judgement.rows[0].name
    rows = [
        (
            f"{name}, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}",
            f"{np.mean(seeds):.4f}",
            _ends(min(seeds), max(seeds)),
        ),
        ("tuned boosting", f"{walk.boosting_auc:.4f}", ""),
    ]
    if shuffled:
        ends = walk.shuffled_interval
        rows.append(
            (
                "shuffled labels",
                f"{np.mean(shuffled):.4f}",
                NONE if ends is None else _ends(*ends),
            )
        )
    note = "Range of the seeds; 95% interval of the mean over shuffles."
    if walk.leaks:
        note += "\nSHUFFLED LABELS RANK WINDOWS: look for a leak before you believe any figure."
    return Sheet(f"Checks on {walk.newest}", ("fits", "AUC", "range"), tuple(rows), note)


def _dates(judgement: Judgement) -> str:
    count = len(judgement.dates)
    return f"{count} date{'' if count == 1 else 's'}"


def _signed(value: float | None) -> str:
    return NONE if value is None else f"{value:+.4f}"


def _range(found: Interval | None, digits: int = 4) -> str:
    return NONE if found is None else _ends(found.low, found.high, digits)


def _ends(low: float, high: float, digits: int = 4) -> str:
    return f"{low:.{digits}f}..{high:.{digits}f}"
