"""Labels of live decisions: `features.labels` on the rows of the stream.

A label is known when a row of the same segment lies beyond the horizon. A decision is unlabelled if
its segment ends before that, or if a part of the stream is missing.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_code.errors import ConfigError, DataError
from model_code.features.labels import UNOBSERVED, LabelStream
from model_code.live.feedback.frames import Sampled, SeenRow
from model_code.settings import FeatureSpec

REMEMBERED = 50_000  # labels of rows whose decision has not come yet
Key = tuple[str, int, int]


class Labelled(NamedTuple):
    """A decision and its label: 1, 0, or -1 if unlabelled."""

    sampled: Sampled
    label: int


class _Stream:
    """One instrument's rows whose label is not decided."""

    def __init__(self, spec: FeatureSpec) -> None:
        self.keys: deque[Key] = deque()
        self._labels, self._segment, self._newest_ns = LabelStream(spec), 0, 0

    def update(self, rows: Sequence[SeenRow]) -> NDArray[np.int8]:
        """Labels of the oldest rows, as far as they are decided.

        Raises:
            DataError: the clock goes back, also against earlier rows; none of these is taken.
        """
        for row in rows:
            if row.local_ns < self._newest_ns:
                self._newest_ns = 0
                raise DataError("the clock goes back", where=row.symbol)
            self._newest_ns = row.local_ns
        segments = []
        for row in rows:
            self._segment += row.begins
            segments.append(self._segment)
            self.keys.append((row.symbol, row.session, row.sequence))
        return self._labels.update(
            np.array([row.local_ns for row in rows], np.int64),
            np.array([row.bid for row in rows], np.float64),
            np.array([row.ask for row in rows], np.float64),
            np.array(segments, np.int32),
            np.full(len(rows), UNOBSERVED, np.int8),  # no message carries a label
        )

    def finish(self) -> NDArray[np.int8]:
        """Labels of all rows."""
        self._segment, self._newest_ns = self._segment + 1, 0
        return self._labels.finish()


class Labeller:
    """Joins decisions with the labels of their rows.

    Args:
        spec: label, horizon and cost of the model version.

    Raises:
        ConfigError: the label looks at two venues at once (`cross-venue`).
    """

    def __init__(self, spec: FeatureSpec) -> None:
        if spec.chosen_label == "cross-venue":
            raise ConfigError(
                "live decisions with the label cross-venue cannot be labelled: it needs the quotes "
                "of two venues of the whole day",
                remedy="use a version of another label, or judge without labels",
            )
        self._spec = spec
        self._streams: dict[str, _Stream] = {}
        self._waiting: dict[Key, Sampled] = {}
        self._known: OrderedDict[Key, int] = OrderedDict()
        self._matched: list[Key] = []

    @property
    def waiting(self) -> int:
        """Decisions without a label yet."""
        return len(self._waiting)

    def take(self, rows: Sequence[SeenRow], sampled: Sequence[Sampled]) -> list[Labelled]:
        """Take the next rows and decisions; return the decisions whose label is now decided.

        Raises:
            DataError: an instrument's clock goes back; `finish` must follow.
        """
        for one in sampled:
            self._waiting[one.key] = one
        by_symbol: dict[str, list[SeenRow]] = {}
        for row in rows:
            by_symbol.setdefault(row.symbol, []).append(row)
        for symbol, new in by_symbol.items():
            stream = self._streams.setdefault(symbol, _Stream(self._spec))
            self._decided(stream, stream.update(new))
        return [
            Labelled(self._waiting.pop(key), self._known.pop(key))
            for key in self._decided_keys(sampled)
        ]

    def finish(self) -> list[Labelled]:
        """The decisions that still wait: labelled if their horizon was seen, else unlabelled.

        Afterwards labels do not look back across this place.
        """
        for stream in self._streams.values():
            self._decided(stream, stream.finish())
        found = [
            Labelled(one, self._known.pop(key, UNOBSERVED)) for key, one in self._waiting.items()
        ]
        self._waiting.clear()
        self._matched.clear()
        return found

    def _decided(self, stream: _Stream, label_N: NDArray[np.int8]) -> None:
        """Remember the labels of a stream's oldest rows."""
        for label in label_N.tolist():
            key = stream.keys.popleft()
            self._known[key] = label
            if key in self._waiting:
                self._matched.append(key)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _decided_keys(self, sampled: Sequence[Sampled]) -> list[Key]:
        """Keys of waiting decisions with a label, each once."""
        keys = dict.fromkeys([*self._matched, *(one.key for one in sampled)])
        self._matched.clear()
        return [key for key in keys if key in self._known]
