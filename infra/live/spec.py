"""The service besides the model."""

from typing import Annotated, Literal

from pydantic import Field

from infra.live.kafka import KafkaSpec
from model_code.settings import Spec

Amount = Annotated[float, Field(gt=0)]


class ServiceSpec(Spec):
    """Broker, what is decided, and how often.

    Attributes:
        kafka: broker and topics.
        stale_after_ms: later than this after the tick's local stamp, a decision is suppressed;
            None: never.
        every_window: decide on every window instead of the newest of each instrument.
        snapshot_s, report_s: between two snapshots, between two ledger lines.
        drain_s: how long the outputs may take to be confirmed at the end.
    """

    KIND: Literal["live"] = "live"
    kafka: KafkaSpec = KafkaSpec()
    stale_after_ms: Amount | None = None
    every_window: bool = False
    snapshot_s: Amount = 5.0
    report_s: Amount = 30.0
    drain_s: Amount = 10.0
