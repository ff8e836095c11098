"""A story's steps with their seconds, and the figures that it read back."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

out = Console(highlight=False)


@dataclass
class Story:
    """What happened: the steps with their seconds, and figures that were read back."""

    steps: list[tuple[str, float]] = field(default_factory=list)
    checks: list[tuple[str, object, object]] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """Print one line with the minutes and seconds since the start."""
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        out.print(f"[dim]{minutes:02d}:{seconds:02d}[/]  {text}", soft_wrap=True)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step."""
        self.say(f"[bold]{name}[/]")
        since = time.monotonic()
        yield
        self.steps.append((name, time.monotonic() - since))

    def check(self, name: str, wanted: object, found: object) -> None:
        """Compare a figure that was read back."""
        self.checks.append((name, wanted, found))

    def tables(self) -> Iterator[Table]:
        """The steps, and the figures."""
        steps = Table("step", "seconds", title="Steps")
        for name, seconds in self.steps:
            steps.add_row(name, f"{seconds:.0f}")
        yield steps
        checks = Table("figure", "wanted", "read back", "", title="Figures")
        for name, wanted, found in self.checks:
            checks.add_row(
                name, str(wanted), str(found), "ok" if wanted == found else "[red]differs"
            )
        yield checks

    @property
    def sound(self) -> bool:
        """Whether every figure is as wanted."""
        return bool(self.checks) and all(wanted == found for _, wanted, found in self.checks)
