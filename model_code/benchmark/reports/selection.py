"""What begins a benchmark's report: the chosen engine, and why the faster ones were not chosen."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from model_code.benchmark.reports.latency_sheets import chosen_line
from model_code.benchmark.reports.sheet import Sheet, ms
from model_code.benchmark.result import BenchmarkResult
from model_code.benchmark.verdict import ACCEPTED
from model_code.settings import ANCHOR_ROW, CHAMPION_ROW, TRITON_ROW

NOT_COMPETING = {CHAMPION_ROW, ANCHOR_ROW, TRITON_ROW}  # other versions, the same engine served
NOT_JUDGED = "not judged"
UNSERVABLE = "Triton cannot serve it"


@dataclass(frozen=True)
class Selection:
    """The gate's choice among the engines of one measurement.

    Attributes:
        engine: the one to stage; if none may be, the one that missed the fewest goals.
        reason: why this engine, in one sentence.
        verdicts: verdict by engine, for every engine that Triton can serve.
        reasons: of the verdicts, by engine.
        missed: missed goals in words, by engine; engines without an entry missed none, or were
            judged by an earlier version.
    """

    engine: str
    reason: str
    verdicts: Mapping[str, str]
    reasons: Mapping[str, str]
    missed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """Of the chosen engine."""
        return self.verdicts[self.engine]

    @property
    def accepted(self) -> bool:
        """Whether the chosen engine may be staged."""
        return self.verdict in ACCEPTED

    @property
    def mark(self) -> str:
        """What stands beside its name in a table."""
        return "chosen" if self.accepted else "nearest"

    def why(self, engine: str) -> str:
        """Why an engine was not chosen."""
        if engine not in self.verdicts:
            return UNSERVABLE
        if self.verdicts[engine] in ACCEPTED:
            return f"did not fail; {self.reason}"
        return "; ".join(self.missed.get(engine, ())) or self.reasons.get(engine, "")


def headline(result: BenchmarkResult, selection: Selection) -> str:
    """The engine, its ratio to the reference and its share of the floor, in one line."""
    line = chosen_line(result, selection.engine)
    if selection.accepted:
        return line
    return f"no engine may be staged; nearest {line.removeprefix('chosen ')}"


def faster(result: BenchmarkResult, selection: Selection) -> Sheet:
    """Every engine of this model that is faster at batch 1 than the chosen one, and why not it.

    If no engine may be staged, every engine that was judged.
    """
    chosen = result.row(selection.engine)
    rows = tuple(
        (
            row.engine,
            ms(row.p50_ms),
            selection.verdicts.get(row.engine, NOT_JUDGED),
            selection.why(row.engine),
        )
        for row in sorted(result.rows, key=lambda row: row.p50_ms)
        if row.engine not in NOT_COMPETING
        and (
            (row.engine != selection.engine and chosen is not None and row.p50_ms < chosen.p50_ms)
            if selection.accepted
            else row.engine in selection.verdicts
        )
    )
    title = "Why the faster engines were not chosen" if selection.accepted else "Why none passed"
    note = "" if rows else f"No engine is faster than {selection.engine}."
    return Sheet(title, ("engine", "p50 (ms)", "verdict", "why"), rows, note)


def opening(result: BenchmarkResult, selection: Selection) -> str:
    """The choice, the verdict and the faster engines, as Markdown."""
    line = headline(result, selection)
    verdict = f"{selection.verdict}: {selection.reasons.get(selection.engine, '')}".rstrip(": ")
    lines = [f"**{line[0].upper()}{line[1:]}.**", "", f"Verdict {verdict}.", ""]
    lines += [f"{selection.reason}.", ""] if selection.reason else []
    found = faster(result, selection)
    return "\n".join([*lines, found.markdown() if found.rows else f"{found.note}\n"])
