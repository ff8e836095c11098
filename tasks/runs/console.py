"""Where stages print."""

from rich.console import Console


class RunConsole(Console):
    """A console that a stage can take to another process: there it is that process's own."""

    def __reduce__(self) -> tuple[object, ...]:
        return _own, ()


def _own() -> RunConsole:
    return console


console = RunConsole()
