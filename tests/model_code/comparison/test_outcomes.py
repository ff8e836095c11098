"""Outcomes of live requests: written by clients, read by a canary's judge."""

from pathlib import Path

import pytest

from model_code.comparison.outcomes import (
    MOST_TIMED,
    Outcome,
    OutcomeReader,
    OutcomeWriter,
    outcomes_of,
)
from model_code.errors import IntegrityError
from model_code.repository.route import Target

FOUND = [Outcome("m", 2, 1.5, agrees=True), Outcome("n", 1, 2.0), Outcome("m", 2, error="refused")]
CANDIDATE, CHAMPION = Target(model="m", version=2), Target(model="n", version=1)


def test_the_judge_reads_what_was_written_since_it_began(tmp_path: Path) -> None:
    writer = OutcomeWriter(tmp_path / "route.json")
    writer.flush()
    assert list(tmp_path.iterdir()) == []
    writer.add(Outcome("m", 2, error="of an earlier canary"))
    writer.flush()
    reader = OutcomeReader(tmp_path / "route.json")
    assert reader.read() == []
    for one in FOUND[:2]:
        writer.add(one)
    writer.flush()
    assert reader.read() == FOUND[:2]
    writer.add(FOUND[2])
    writer.flush()
    assert reader.read() == FOUND[2:]
    assert reader.read() == []


def test_many_outcomes_are_few_lines(tmp_path: Path) -> None:
    reader, writer = (one(tmp_path / "route.json") for one in (OutcomeReader, OutcomeWriter))
    assert isinstance(reader, OutcomeReader)
    assert isinstance(writer, OutcomeWriter)
    for _ in range(10_000):
        writer.add(Outcome("m", 2, 1.5))
        writer.add(Outcome("m", 2, error="refused"))
    writer.flush()
    found = reader.read()
    assert len(found) == MOST_TIMED + 2
    assert sum(one.count for one in found if not one.error) == 10_000
    assert sum(one.count for one in found if one.error) == 10_000
    writer.add(Outcome("m", 2, 1.5))  # the next write has latencies again
    writer.flush()
    assert reader.read() == [Outcome("m", 2, 1.5)]


def test_a_line_that_is_not_complete_is_read_later(tmp_path: Path) -> None:
    folder = tmp_path / "outcomes"
    folder.mkdir()
    reader = OutcomeReader(tmp_path / "route.json")
    path = folder / "host-1.jsonl"
    path.write_text('{"model":"m","version":2,"ms":1.5}\n{"model":"m",')
    assert len(reader.read()) == 1
    with path.open("a") as file:
        file.write('"version":3,"ms":1.0}\n')
    assert [one.version for one in reader.read()] == [3]
    with path.open("a") as file:
        file.write('{"model":"m"}\n')
    with pytest.raises(IntegrityError, match="cannot be read") as error:
        reader.read()
    assert str(path) in error.value.where


def test_two_clients_of_a_process_never_write_to_one_file(tmp_path: Path) -> None:
    """A killed client may leave half a line; the next one must not continue it."""
    reader = OutcomeReader(tmp_path / "route.json")
    for one in FOUND:
        writer = OutcomeWriter(tmp_path / "route.json")
        writer.add(one)
        lines = writer.take()
        writer.write(lines)
        writer.write(lines[: len(lines) // 2])
    found = reader.read()
    assert sorted(found, key=str) == sorted(FOUND, key=str)


def test_a_failure_before_the_champion_s_answer_counts_for_the_candidate() -> None:
    def of(answered: Target, late: bool = False) -> list[Outcome]:
        failed = [] if answered == CANDIDATE else [(CANDIDATE, "refused")]
        return outcomes_of(CANDIDATE, answered, failed, {CANDIDATE} if late else set(), 7.0)

    assert of(CHAMPION) == [Outcome("m", 2, error="refused")]
    assert of(CHAMPION, late=True) == [Outcome("m", 2, 7.0, late=True)]
    assert of(CANDIDATE) == [Outcome("m", 2, 7.0)]
    assert outcomes_of(CANDIDATE, CHAMPION, [], set(), 7.0) == [Outcome("n", 1, 7.0)]
