"""How the model server runs an engine: what `config.pbtxt` says beyond the engine itself."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from model_code.settings.base import PositiveInt, Spec
from model_code.settings.contract import MAX_BATCH_SIZE, MAX_QUEUE_DELAY_US, PREFERRED_BATCH_SIZES

MOST_INSTANCES = 16
LONGEST_DELAY_US = 100_000


class ServingSpec(Spec):
    """Instances and batching of the served model. The defaults are the design's.

    Attributes:
        instances: copies of the engine; each is a process that answers one batch at a time.
        queue_delay_us: how long the server may wait for more requests of a batch, in microseconds.
        preferred_batch_sizes: the server sends a batch of such a size at once; ascending. None are
            allowed: then it sends what waits.
        threads: of one instance, CPU engines only; None: those that the engine was built with.
    """

    KIND: Literal["triton"] = "triton"
    instances: Annotated[int, Field(ge=1, le=MOST_INSTANCES)] = 1
    queue_delay_us: Annotated[int, Field(ge=0, le=LONGEST_DELAY_US)] = MAX_QUEUE_DELAY_US
    preferred_batch_sizes: Annotated[tuple[int, ...], Field(strict=False)] = PREFERRED_BATCH_SIZES
    threads: PositiveInt | None = None

    @model_validator(mode="after")
    def _sizes_ascend(self) -> Self:
        sizes = self.preferred_batch_sizes
        if list(sizes) != sorted(set(sizes)) or any(not 1 < n <= MAX_BATCH_SIZE for n in sizes):
            raise ValueError(
                f"preferred_batch_sizes are {', '.join(map(str, sizes))}: give ascending numbers "
                f"from 2 to {MAX_BATCH_SIZE}"
            )
        return self

    @property
    def text(self) -> str:
        """In words, for pages and messages."""
        sizes = "/".join(map(str, self.preferred_batch_sizes)) or "none"
        threads = "the engine's" if self.threads is None else self.threads
        return (
            f"instances {self.instances}, threads {threads}, queue delay {self.queue_delay_us} us, "
            f"preferred batches {sizes}"
        )
