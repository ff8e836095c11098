"""The evidence on an engine, and the verdict on it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from model_code.benchmark.significance import Interval

Word = Literal["pass", "fail", "no baseline", "too few events", "not comparable"]
RowWord = Word | Literal["not judged"]
PROMOTABLE: frozenset[Word] = frozenset({"pass", "no baseline"})  # by default
ACCEPTED: frozenset[Word] = PROMOTABLE | {"not comparable"}  # registered and staged
TOO_FEW = "too few events"
NOT_COMPARABLE = "not comparable"
NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Draws:
    """A metric in every resample.

    Attributes:
        values_S: the resampled metric.
        clusters: number of independent pieces drawn from; None means very many.
        rounds_P: a latency metric in every round, for comparison round by round.
    """

    values_S: NDArray[np.float64] = field(repr=False)
    clusters: int | None = None
    rounds_P: NDArray[np.float64] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Evidence:
    """Metrics of one engine, and the resampled ones among them.

    Engines of one run share the same draws, so `draws` of two engines are paired.
    """

    metrics: Mapping[str, float | None]
    draws: Mapping[str, Draws] = field(default_factory=dict)

    def number(self, metric: str) -> float | None:
        """The metric, or None if it is missing or not finite."""
        value = self.metrics.get(metric)
        return float(value) if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class Events:
    """How many windows of each class the engines are judged on.

    Attributes:
        positives: test windows with label 1.
        negatives: test windows with label 0.
        days: UTC days they are from.
    """

    positives: int
    negatives: int
    days: int

    @classmethod
    def of(cls, label_N: NDArray[np.integer], day_N: NDArray[np.integer]) -> Self:
        """Count windows; `day_N` is the day of each."""
        positives = int((label_N == 1).sum())
        return cls(positives, len(label_N) - positives, len(np.unique(day_N)))

    def too_few(self, minimum: int) -> str:
        """Why goals on decisions and ranks cannot be judged; empty if they can."""
        rarer = min(self.positives, self.negatives)
        if rarer >= minimum:
            return ""
        enough = "no number of days like this would be enough"
        if rarer:
            days = math.ceil(minimum * self.days / rarer)
            enough = f"{days} {'day' if days == 1 else 'days'} like this would be enough"
        return (
            f"{TOO_FEW}: {self.positives} positives and {self.negatives} negatives among the test "
            f"windows, {minimum} of each are needed; {enough}"
        )


@dataclass(frozen=True)
class Obstacles:
    """Why earlier versions cannot be compared with; empty where they can.

    Attributes:
        champion: why the verdict cannot be `pass`.
        answers: why no goal on answers is judged against the champion.
        latency: why no goal on latency, throughput, size or memory is.
        anchor: why no goal is judged against the version of many nights ago.
    """

    champion: str = ""
    answers: str = ""
    latency: str = ""
    anchor: str = ""


class GoalRow(BaseModel):
    """Result of one goal.

    Attributes:
        name: of the goal.
        metric: of the goal.
        kind: of the goal.
        value: the candidate's.
        reference: the value it is compared with, FP32's, an earlier version's or gradient
            boosting's, or None.
        limit: as in the goal, for example "<= 10".
        interval: if the goal sets a confidence: of the value, or of its gain over the reference,
            in the limit's unit.
        margin: distance to the limit in the limit's unit, from the interval's worse bound if there
            is one; negative means missed.
        passed: None if it is not judged: nothing to compare against, or too few events.
        reason: as text.
        over: whose value the reference is, as in the goal; empty without one, and in a run of an
            earlier version.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    name: str
    metric: str
    kind: str
    value: float | None
    reference: float | None
    limit: str
    interval: Interval | None = None
    margin: float | None
    passed: bool | None
    reason: str
    over: str = ""

    @property
    def line(self) -> str:
        """The goal with value and limit, in words."""
        against = "" if self.reference is None else f" against {self.reference:.4g}"
        whose = "interval" if self.reference is None else "interval of the gain"
        bounds = "" if self.interval is None else f", {whose} {_interval_text(self.interval)}"
        why = "" if self.reason in ("met", "missed") else f" ({self.reason})"
        return f"{self.name}: {_text(self.value)}{against}{bounds}, limit {self.limit}{why}"

    @property
    def word(self) -> RowWord:
        """The row's result in the words of a verdict."""
        if self.passed is not None:
            return "pass" if self.passed else "fail"
        if self.reason.startswith(NOT_JUDGED):
            return "not judged"
        if self.reason.startswith(NOT_COMPARABLE):
            return "not comparable"
        return "too few events" if self.reason.startswith(TOO_FEW) else "no baseline"


class Verdict(BaseModel):
    """The gate's verdict on one candidate.

    Attributes:
        verdict: "too few events" if no goal is missed, but the goals on decisions and ranks cannot
            be judged; "not comparable" if no goal is missed, but the champion cannot be compared
            with; "no baseline" if all other goals pass but there is no champion.
        promotable: whether it may become the champion by default.
        reason: in one sentence.
        rows: one per goal.
        auc_resolution: half width of the 95% interval of the AUC difference to gradient boosting,
            paired; None if it was not resampled.
        family: engines that the goals' confidence is shared by.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    verdict: Word
    promotable: bool
    reason: str
    rows: tuple[GoalRow, ...]
    auc_resolution: float | None = None
    family: int = 1

    @property
    def missed(self) -> tuple[str, ...]:
        """The missed goals with value and limit, in words."""
        return tuple(row.line for row in self.rows if row.word == "fail")

    @property
    def accepted(self) -> bool:
        """Whether the model is registered and the engine staged."""
        return self.verdict in ACCEPTED

    @property
    def resolution_line(self) -> str:
        """The smallest AUC difference that could have been seen; empty if unknown."""
        if self.auc_resolution is None:
            return ""
        return (
            "smallest AUC difference from gradient boosting that could have been seen: "
            f"{self.auc_resolution:.4f}"
        )

    @property
    def family_line(self) -> str:
        """Why the confidence of the goals is stricter than asked; empty if it is not."""
        if self.family == 1:
            return ""
        return (
            f"{self.family} engines share the confidence of the goals (Holm), so each is judged at "
            "a stricter one"
        )

    def markdown(self) -> str:
        """The goals as a Markdown table, with the verdict below."""
        lines = [
            "| goal | metric | value | compared with | limit | interval | margin | |",
            "|---" * 8 + "|",
        ]
        for row in self.rows:
            mark = "FAIL" if row.word == "fail" else row.word
            lines.append(
                f"| {row.name} | {row.metric} | {_text(row.value)} | {_text(row.reference)} "
                f"| {row.limit} | {_interval_text(row.interval)} | {_text(row.margin)} | {mark} |"
            )
        lines += ["", f"**{self.verdict}**: {self.reason}"]
        if self.family > 1:
            lines += ["", f"{self.family_line[0].upper()}{self.family_line[1:]}."]
        if self.resolution_line:
            lines += ["", f"{self.resolution_line[0].upper()}{self.resolution_line[1:]}."]
        return "\n".join(lines) + "\n"


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _interval_text(bounds: Interval | None) -> str:
    return "–" if bounds is None else f"{bounds.low:.4g} .. {bounds.high:.4g}"
