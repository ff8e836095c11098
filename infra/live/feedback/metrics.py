"""What became of the live decisions, as Prometheus metrics; an unknown value is absent."""

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from infra.live.feedback.prediction_log import PredictionLog
from infra.live.feedback.worker import Report

PREFIX = "tickline_live_feedback_"
FIGURES = {
    "auc": "Area under the ROC curve of the window's labelled decisions.",
    "auc_low": "Lower bound of the AUC's interval.",
    "auc_high": "Upper bound of the AUC's interval.",
    "average_precision": "Average precision; guessing reaches the base rate.",
    "base_rate": "Share of class 1 among the window's labels.",
    "calibration_error": "Expected calibration error, 15 bins.",
    "precision": "Precision at the decision threshold.",
    "decisions": "Decisions in the window.",
    "unlabelled": "Decisions in the window without a label.",
}
Family = GaugeMetricFamily | CounterMetricFamily


class FeedbackCollector(Collector):
    """The newest report at each scrape.

    Args:
        report: the newest, for example `lambda: log.report`.
        dropped: sampled decisions that the service could not hand over.
    """

    def __init__(self, report: Callable[[], Report], dropped: Callable[[], int]) -> None:
        self._report, self._dropped = report, dropped

    def collect(self) -> Iterable[Family]:
        """The families that have a value."""
        report = self._report()
        for name, text in FIGURES.items():
            gauge = GaugeMetricFamily(f"{PREFIX}{name}", text, labels=["version"])
            for version, figures in report.figures.items():
                value = getattr(figures, name)
                if value is not None:
                    gauge.add_metric([str(version)], float(value))
            if gauge.samples:
                yield gauge
        for name, text in (
            ("psi", "Population stability index against training."),
            ("psi_limits", "Largest index without a breach."),
        ):
            gauge = GaugeMetricFamily(f"{PREFIX}{name}", text, labels=["version", "feature"])
            for version, figures in report.figures.items():
                values = figures.psi if name == "psi" else figures.limits
                for feature, value in values.items():
                    gauge.add_metric([str(version), feature], value)
            if gauge.samples:
                yield gauge
        streak = GaugeMetricFamily(
            f"{PREFIX}breached_windows", "Windows in a row with a breach.", labels=["version"]
        )
        for version, value in report.streaks.items():
            streak.add_metric([str(version)], value)
        if streak.samples:
            yield streak
        counter = CounterMetricFamily(
            f"{PREFIX}outcomes", "Sampled decisions by what became of them.", labels=["outcome"]
        )
        for outcome, count in {**report.counts, "dropped": self._dropped()}.items():
            if outcome != "waiting":
                counter.add_metric([outcome], count)
        yield counter


def collector(log: PredictionLog) -> FeedbackCollector:
    """The collector of a running log."""
    return FeedbackCollector(lambda: log.report, lambda: log.dropped)
