"""What `tickline bench` prints: the tables, the verdict, how well repeats agree, the choice."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table

from flows.bench import Bench
from flows.summary import goals_table
from model_code.benchmark.report import Sheet, chosen_line, sheets


def render(found: tuple[Bench, ...]) -> Iterator[RenderableType]:
    """Everything to print, in order; the last line sums it up."""
    last = found[-1]
    for sheet in sheets(last.result):
        yield _table(sheet)
    verdict = last.judged.verdict
    yield goals_table(verdict)
    yield f"{verdict.verdict}: {verdict.reason}"
    yield last.judged.reason
    yield f"raw numbers, plots and benchmark.html: {last.folder}"
    yield chosen_line(last.result, last.judged.engine)
    if len(found) > 1:
        yield from repeated(found)


def repeated(found: tuple[Bench, ...]) -> list[str]:
    """How well repeated measurements agree; the last line is the summary."""
    first = found[0]
    rankings = [done.result.ranking for done in found]
    verdicts = [done.judged.verdict.verdict for done in found]
    chosen = [done.judged.engine for done in found]

    def same(values: Sequence[str]) -> str:
        return f"{values.count(values[0])}/{len(values)}"

    lines = [
        f"measurement {turn}: chose {done.judged.engine} ({done.judged.verdict.verdict}); "
        + " < ".join(done.result.ranking)
        for turn, done in enumerate(found, 1)
    ]
    firsts, lasts = [order[0] for order in rankings], [order[-1] for order in rankings]
    return [
        *lines,
        f"first place {firsts[0]} {same(firsts)}, last place {lasts[0]} {same(lasts)}, "
        f"chosen {first.judged.engine} {same(chosen)}",
        f"same ranking {rankings.count(rankings[0])}/{len(found)}, same verdict {same(verdicts)}",
    ]


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
