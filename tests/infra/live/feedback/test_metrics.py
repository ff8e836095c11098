"""The newest report as Prometheus reads it."""

from prometheus_client import CollectorRegistry, generate_latest

from infra.live.feedback.metrics import FeedbackCollector
from infra.live.feedback.worker import Report
from model_code.live.feedback.figures import Figures


def text(report: Report) -> str:
    registry = CollectorRegistry()
    registry.register(FeedbackCollector(lambda: report, lambda: 3))
    return generate_latest(registry).decode()


def test_figures_and_counts_are_exported_and_unknown_ones_absent() -> None:
    figures = Figures(
        version=7, from_ns=0, until_ns=1, decisions=900, unlabelled=4, auc=0.61, base_rate=0.1,
        psi={"spread": 0.3}, limits={"spread": 0.25},
    )  # fmt: skip
    found = text(Report({"labelled": 896, "waiting": 5}, {7: figures}, {7: 2}, []))
    assert 'tickline_live_feedback_auc{version="7"} 0.61' in found
    assert 'tickline_live_feedback_psi{feature="spread",version="7"} 0.3' in found
    assert 'tickline_live_feedback_psi_limits{feature="spread",version="7"} 0.25' in found
    assert 'tickline_live_feedback_breached_windows{version="7"} 2.0' in found
    assert 'tickline_live_feedback_outcomes_total{outcome="labelled"} 896.0' in found
    assert 'outcome="dropped"} 3.0' in found
    assert "waiting" not in found
    assert "precision{" not in found.replace("average_precision{", "precision{")


def test_before_the_first_report_there_are_no_figures() -> None:
    found = text(Report({}, {}, {}, []))
    assert "feedback_auc" not in found
    assert 'outcome="dropped"} 3.0' in found
