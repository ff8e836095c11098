"""Specification of the service."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from infra.live.feedback.spec import LogSpec
from infra.live.kafka.clients import KafkaSpec
from infra.live.redis.spec import RedisSpec
from model_code.settings import Spec

Amount = Annotated[float, Field(gt=0)]


class TritonSpec(Spec):
    """How windows go to Triton.

    Attributes:
        deadline_ms: of one request, all attempts together; then the fallback answers.
        hedge_to: gRPC host:port of a second server; a request goes there too if the first has not
            answered after `hedge_after_ms`, and the first answer counts. None: no second server.
        hedge_after_ms: before the second request; with `hedge_to`, at most half of the deadline.
        probe_ms: from a failure to the first probe; the wait doubles up to `longest_probe_ms`.
        longest_probe_ms: between two probes.
        fallback: let the champion's engine in this process answer while no server does.
    """

    KIND: Literal["live-triton"] = "live-triton"
    deadline_ms: Amount = 20.0
    hedge_to: Annotated[str, Field(pattern=r"^[^\s/]+:\d+$")] | None = None
    hedge_after_ms: Amount = 5.0
    probe_ms: Amount = 50.0
    longest_probe_ms: Amount = 1000.0
    fallback: bool = True

    @model_validator(mode="after")
    def _leaves_time_for_both(self) -> Self:
        if self.hedge_to is not None and self.hedge_after_ms > self.deadline_ms / 2:
            raise ValueError(
                f"hedge_after_ms is {self.hedge_after_ms:g}, at most half of deadline_ms "
                f"({self.deadline_ms:g}) leaves the second server time to answer"
            )
        return self


class ServiceSpec(Spec):
    """Broker, what is decided, and how often.

    Attributes:
        kafka: broker and topics.
        triton: how windows go to Triton.
        redis_url: `redis://HOST:PORT/DATABASE`, where decisions are kept too; None: nowhere.
        redis: keys and expiry.
        log: prediction log and judgement of the decisions; None: neither.
        stale_after_ms: later than this after the tick's local stamp, a decision is suppressed;
            None: never.
        every_window: decide on every window instead of the newest of each instrument.
        rounds_in_flight: at the model at once; while they are, newer windows replace waiting ones.
        round_gap_ms: from the start of a round to that of the next at the earliest. Many ticks
            then share a request: less processor time for each, a little later.
        snapshot_s, report_s: between two snapshots, between two ledger lines.
        drain_s: how long the outputs may take to be confirmed at the end.
    """

    KIND: Literal["live"] = "live"
    kafka: KafkaSpec = KafkaSpec()
    triton: TritonSpec = TritonSpec()
    redis_url: str | None = None
    redis: RedisSpec = RedisSpec()
    log: LogSpec | None = None
    stale_after_ms: Amount | None = None
    every_window: bool = False
    rounds_in_flight: Annotated[int, Field(ge=1, le=64)] = 2
    round_gap_ms: Annotated[float, Field(ge=0)] = 2.0
    snapshot_s: Amount = 5.0
    report_s: Amount = 30.0
    drain_s: Amount = 10.0
