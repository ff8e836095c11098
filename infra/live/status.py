"""What a running service says about itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from infra.live.kafka.clients import Partition
from model_code.live.ledger import Ledger


@dataclass(frozen=True)
class Status:
    """The counts of one moment.

    Attributes:
        ledger: of all messages since the start.
        waiting: windows in slots and at the model.
        lag: messages in the broker that were not received yet, by owned partition; -1: unknown.
        unprocessed: messages received and not processed.
        unconfirmed: outputs that the broker has not confirmed.
        queue_full: outputs refused because the producer's queue was full.
        pauses: how often the partitions paused because too many messages waited.
        sink_failures: decisions that a sink did not take, in rounds.
        broker_error: why the broker cannot be reached; empty if it can; None: not known yet.
    """

    ledger: Ledger = field(default_factory=Ledger)
    waiting: int = 0
    lag: Mapping[Partition, int] = field(default_factory=dict)
    unprocessed: int = 0
    unconfirmed: int = 0
    queue_full: int = 0
    pauses: int = 0
    sink_failures: int = 0
    broker_error: str | None = None
