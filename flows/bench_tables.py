"""What `tickline bench` prints: the tables, the verdict, how well repeats agree, the choice."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table

from flows.bench import Bench, verdicts
from flows.summary import goals_table
from model_code.benchmark import gate
from model_code.benchmark.report import Sheet, chosen_line, sheets


def render(found: tuple[Bench, ...]) -> Iterator[RenderableType]:
    """Everything to print, in order; the last line sums it up."""
    last = found[-1]
    for sheet in sheets(last.result):
        yield _table(sheet)
    yield _table(verdicts(last.judged))
    verdict = last.judged.verdict
    yield goals_table(verdict)
    yield f"{verdict.verdict}: {verdict.reason}"
    yield last.judged.reason
    yield f"raw numbers, plots and benchmark.html: {last.folder}"
    if last.result.simulated:
        yield "SIMULATED MARKET: these ticks are made up, no figure here is a market's"
    yield chosen_line(last.result, last.judged.engine)
    if len(found) > 1:
        yield from repeated(found)


def repeated(found: tuple[Bench, ...]) -> list[str]:
    """How well repeated measurements agree with the first; the last line is the summary.

    Engines that one measurement cannot tell apart share a place ("a = b"), in the table's order. Of
    the first place and of the last the engine is told that stood there, alone or not, most often.
    """
    standings = [gate.places(done.run) for done in found]
    rankings = [[name for place in standing for name in place] for standing in standings]
    chosen = [done.judged.engine for done in found]
    words = [done.judged.verdict.verdict for done in found]
    unsure = _unsure([done.judged.verdicts for done in found])
    lines = [
        f"measurement {turn}: chose {done.judged.engine} ({done.judged.verdict.verdict}); "
        + " < ".join(" = ".join(place) for place in standing)
        for turn, (done, standing) in enumerate(zip(found, standings, strict=True), 1)
    ]
    return [
        *lines,
        f"verdicts that changed: {unsure or 'none'}",
        f"first place {_steadiest([standing[0] for standing in standings])}, "
        f"last place {_steadiest([standing[-1] for standing in standings])}, "
        f"chosen {chosen[0]} {_same(chosen)}",
        f"same ranking {_same(rankings)}, same verdict {_same(words)}",
    ]


def _same(values: Sequence[object]) -> str:
    return f"{sum(value == values[0] for value in values)}/{len(values)}"


def _steadiest(places: Sequence[tuple[str, ...]]) -> str:
    name, times = Counter(name for place in places for name in place).most_common(1)[0]
    return f"{name} {times}/{len(places)}"


def _unsure(judged: Sequence[Mapping[str, str]]) -> str:
    """Engines that the gate did not judge alike each time, with how often it said what."""
    engines = dict.fromkeys(name for found in judged for name in found)
    counts = {name: Counter(found.get(name, "not judged") for found in judged) for name in engines}
    return "; ".join(
        f"{name} " + ", ".join(f"{word} {times}" for word, times in words.items())
        for name, words in counts.items()
        if len(words) > 1
    )


def _table(sheet: Sheet) -> Table:
    table = Table(
        title=sheet.title,
        title_justify="left",
        caption=sheet.note or None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,  # all of it within 80 columns
        padding=(0, 1, 0, 0),
    )
    for index, column in enumerate(sheet.columns):
        numbers = index and column != "why"
        table.add_column(column, justify="right" if numbers else "left", no_wrap=column != "why")
    for row in sheet.rows:
        table.add_row(*row)
    return table
