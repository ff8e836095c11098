"""A table of a report, and the numbers in it as text."""

from dataclasses import dataclass, replace
from typing import Self

NONE = "–"


@dataclass(frozen=True)
class Sheet:
    """One table: the first column is text, the others are numbers as text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def marked(self, name: str, mark: str) -> Self:
        """The same table; `mark` stands beside this name in the first column."""
        rows = tuple(
            (f"{first} ({mark})" if first == name else first, *rest) for first, *rest in self.rows
        )
        return replace(self, rows=rows)

    def markdown(self) -> str:
        """As a Markdown table under its title."""
        lines = [f"### {self.title}", "", f"| {' | '.join(self.columns)} |"]
        lines += ["|---" + "|---:" * (len(self.columns) - 1) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in self.rows]
        return "\n".join([*lines, "", *([self.note, ""] if self.note else [])])


def text(value: object) -> str:
    """A cell as text: four digits of a float."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return NONE if value is None else str(value)


def number(value: float | None, form: str) -> str:
    """A number in this format; a dash if there is none."""
    return NONE if value is None else form.format(value)


def ms(value: float) -> str:
    """Milliseconds; three decimals below 0.1."""
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"
