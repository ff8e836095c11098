"""Results of promotion steps, persisted with the flow run."""

import datetime as dt
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field

from model_code.benchmark.gate import Verdict
from model_code.comparison.observed import Judged, Observed
from model_code.repository.decisions import Subject
from model_code.repository.route import Target
from model_code.serving.candidate import CANDIDATE_NAME
from model_code.settings import PromotionSpec
from tasks.nightly.records import Record

AUDIT_TAG = "audit_sha256"


class Opened(Record):
    """An opened promotion.

    Attributes:
        version: to promote.
        started_by: who or what started it.
        candidate: the version's folder in the staging repository.
        mlflow_run_id: of the promotion, nested in the nightly run's.
        opened_at: UTC.
        night_by: who or what started the night of the version; empty: not recorded.
        epoch: number of the newest emergency rollback then; a later one makes this promotion void.
    """

    version: int
    started_by: str
    candidate: str
    mlflow_run_id: str
    opened_at: dt.datetime
    night_by: str = ""
    epoch: int = 0

    @property
    def facts_line(self) -> str:
        """The version and who started it."""
        return f"version {self.version}, started by {self.started_by}"

    @property
    def target(self) -> Target:
        """Route target of the candidate during validation."""
        return Target(model=CANDIDATE_NAME, version=self.version)


class Shown(Record):
    """What the reviewer was shown. The decision applies to nothing else.

    Attributes:
        identity: sha256 over the manifest: every hash, the verdict, the origin.
        engine_sha256: of the engine.
        config_sha256: of its configuration.
        engine: name.
        champion: version that was serving then; None before the first promotion.
        verdict_json: the gate's.
        simulated: trained or measured on simulated data.
        page_url: evidence page in MLflow.
        run_url: MLflow run of the promotion.
        summary: Markdown for the form and the artefact.
        policy_sha256: of the policy's bytes; empty in a promotion of an earlier Tickline.
        loosened: values that are looser than the policy's limits, in words.
        exceptions: why an approval is an exception; empty if it is a plain one.
    """

    identity: str
    engine_sha256: str
    config_sha256: str
    engine: str
    champion: int | None
    verdict_json: str
    simulated: bool
    page_url: str
    run_url: str
    summary: str
    policy_sha256: str = ""
    loosened: tuple[str, ...] = ()
    exceptions: tuple[str, ...] = ()

    @property
    def facts_line(self) -> str:
        """What the version is compared with, its verdict and the page of the evidence."""
        serving = f"version {self.champion} serves" if self.champion else "no version serves yet"
        return f"{self.engine}, gate {self.verdict.verdict}, {serving}; evidence: {self.page_url}"

    @property
    def verdict(self) -> Verdict:
        """The gate's verdict."""
        return Verdict.model_validate_json(self.verdict_json)

    def subject(self, opened: Opened, flow_run_id: str) -> Subject:
        """What the decision is about."""
        return Subject(
            version=opened.version,
            manifest=self.identity,
            engine_sha256=self.engine_sha256,
            config_sha256=self.config_sha256,
            policy_sha256=self.policy_sha256,
            verdict=self.verdict.verdict,
            flow_run_id=flow_run_id,
            started_by=opened.started_by,
            night_by=opened.night_by,
            exceptions=self.exceptions,
            loosened=self.loosened,
        )


class Decided(Record):
    """The final decision.

    Attributes:
        verdict: approve or reject.
        reviewer: empty if the approval timed out.
        at: UTC.
        owner: of the exception, if the approval is one.
        expires: the exception's last day, ISO 8601.
        signed: text that the reviewer signed; empty without a signature.
        signature: by the reviewer's SSH key; empty without one.
        signatures: whether the policy requires them.
    """

    verdict: Literal["approve", "reject"]
    reviewer: str
    reason: str
    at: dt.datetime
    owner: str = ""
    expires: str = ""
    signed: str = ""
    signature: str = ""
    signatures: Literal["required", "optional"] = "optional"

    @property
    def facts_line(self) -> str:
        """The decision, by whom and why."""
        signed = "signed" if self.signature else "not signed"
        by = f" by {self.reviewer}, {signed}" if self.reviewer else ""
        return f"{self.verdict}{by}: {self.reason}"


class Loaded(Record):
    """Load test of the candidate at one concurrency; latencies in milliseconds."""

    concurrency: int
    p50_ms: float
    p99_ms: float
    throughput: float
    failed: int


class Validated(Record):
    """Result of infra validation on the real server.

    Attributes:
        replayed: number of recorded requests answered.
        largest: largest |probability difference| from the benchmark's answers.
        loads: latency and throughput by concurrency.
    """

    replayed: int
    largest: float
    loads: tuple[Loaded, ...]

    @property
    def facts_line(self) -> str:
        """Requests answered, the largest difference, and the latency under the highest load."""
        found = f"{self.replayed} recorded requests, largest difference {self.largest:.1e}"
        if not self.loads:
            return found
        most = max(self.loads, key=lambda load: load.concurrency)
        return (
            f"{found}; p50 {most.p50_ms:.3f} ms, p99 {most.p99_ms:.3f} ms "
            f"at concurrency {most.concurrency}"
        )


class Compared(Record):
    """Result of shadow or canary: one observation per step, or why it was skipped.

    Attributes:
        skipped: why; None: it was not.
        steps: one observation per step.
        goals: of each step, what was found of every goal.
    """

    skipped: str | None
    steps: tuple[Observed, ...] = ()
    goals: tuple[tuple[Judged, ...], ...] = ()

    @property
    def facts_line(self) -> str:
        """What the last step counted, or why it was skipped."""
        if self.skipped is not None:
            return f"skipped: {self.skipped}"
        return self.steps[-1].lines[0] if self.steps else ""

    @classmethod
    def judged(cls, steps: Sequence[Observed], spec: PromotionSpec) -> Self:
        """Steps that were passed, with what was found of their goals."""
        goals = tuple(step.judged(spec) for step in steps)
        return cls(skipped=None, steps=tuple(steps), goals=goals)


class Promoted(Record):
    """How a promotion ended.

    Attributes:
        outcome: promoted, rejected, or already serving.
        champion: serving version.
        previous: version that a rollback returns to; None if there is none.
        behind: of several targets those that do not have the version, each with the reason.
    """

    version: int
    outcome: Literal["promoted", "rejected", "already serving"]
    champion: int | None = None
    previous: int | None = None
    decided: Decided | None = None
    validated: Validated | None = None
    shadow: Compared | None = None
    canary: Compared | None = None
    page_url: str = ""
    seconds: float = 0.0
    behind: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def rejected(cls, opened: Opened, decided: Decided) -> Self:
        """Outcome of a rejected promotion."""
        return cls(version=opened.version, outcome="rejected", decided=decided)


class RolledBack(Record):
    """How a rollback ended.

    Attributes:
        version: serving version.
        from_version: version that served before.
        previous: version that the next rollback returns to; None if there is none.
        seconds: from the first check to the last alias.
        behind: of several targets those that do not have the version, each with the reason.
    """

    version: int
    from_version: int
    previous: int | None
    seconds: float = 0.0
    behind: dict[str, str] = Field(default_factory=dict)
