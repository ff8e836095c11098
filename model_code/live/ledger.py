"""Where every message ended: one column each, and what the sequence numbers say was lost."""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Self

from model_code.errors import DataError
from model_code.live.reasons import Column, Reason, column


@dataclass
class Ledger:
    """Counts of one path since it started, or of several.

    A message that cannot be read counts once, whatever it held. Used trades carry no decision and
    have a column of their own.

    Attributes:
        taken: quotes, trades and unreadable messages.
        columns: messages by where they ended.
        reasons: those without a decision, by reason.
        lost: sequence numbers that never came.
        reordered: messages behind a later one; left out, never sorted in.
        duplicated: messages with a sequence number seen before.
    """

    taken: int = 0
    columns: Counter[Column] = field(default_factory=Counter)
    reasons: Counter[Reason] = field(default_factory=Counter)
    lost: int = 0
    reordered: int = 0
    duplicated: int = 0

    def end(self, reason: Reason) -> Column:
        """Count one message that became no decision; return its column."""
        found = column(reason)
        self.columns[found] += 1
        self.reasons[reason] += 1
        self.reordered += reason is Reason.LATE
        self.duplicated += reason is Reason.DUPLICATE
        return found

    def add(self, other: "Ledger") -> None:
        """Count what another path counted."""
        self.taken += other.taken
        self.columns.update(other.columns)
        self.reasons.update(other.reasons)
        self.lost += other.lost
        self.reordered += other.reordered
        self.duplicated += other.duplicated

    @classmethod
    def parse(cls, text: str) -> Self:
        """The last ledger in a text that `str` wrote; the reasons are not in it.

        Raises:
            DataError: there is none.
        """
        lines = re.findall(r"ledger: in ([\d,]+) = (.*?); lost (.*)", text)
        if not lines:
            raise DataError("no ledger in this text", remedy="read the service's log")
        taken, ends, rest = lines[-1]
        columns = (part.rpartition(" ") for part in ends.split(" + "))
        lost, reordered, duplicated = (_number(found) for found in re.findall(r"[\d,]+", rest)[:3])
        return cls(
            taken=_number(taken),
            columns=Counter({Column(name): _number(count) for name, _, count in columns}),
            lost=lost,
            reordered=reordered,
            duplicated=duplicated,
        )

    @property
    def ended(self) -> int:
        """Messages in a column."""
        return sum(self.columns.values())

    def balanced(self, waiting: int = 0) -> bool:
        """Whether every message is in exactly one column or waiting for its decision.

        Args:
            waiting: in slots and at the model.
        """
        return self.taken == self.ended + waiting

    def __str__(self) -> str:
        parts = [column for column in Column if column is not Column.TRADES or self.columns[column]]
        ends = " + ".join(f"{name} {self.columns[name]:,}" for name in parts)
        return (
            f"ledger: in {self.taken:,} = {ends}; lost {self.lost:,} "
            f"reordered {self.reordered:,} duplicated {self.duplicated:,}"
        )


def _number(text: str) -> int:
    return int(text.replace(",", ""))
