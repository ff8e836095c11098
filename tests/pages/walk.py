"""Read a walk from docs/walks.md and do in a window what it says.

**Bold** after "click", "tick", "choose" or "write" is done, *italic* must be on the first screen.
"""

import re
from pathlib import Path
from typing import NamedTuple

from tests.support.pages import Screen

PAGE = Path(__file__).resolve().parents[2] / "docs" / "walks.md"
# a verb, a field's name, something to act on, or something to see
TOKEN = re.compile(
    r"\b(?P<verb>click|tick|choose|write|close)\b|(?:as|instead of)\s+\*\*(?P<field>[^*]+)\*\*"
    r"|\*\*(?P<target>[^*]+)\*\*|\*(?P<seen>[^*]+)\*",
    re.IGNORECASE,
)


class Step(NamedTuple):
    """One action: a verb, what it acts on, and for "choose" and "write" the field."""

    verb: str
    text: str = ""
    field: str = ""


def section(title: str) -> str:
    """The text below a heading of the page, to the next one."""
    _, found, rest = PAGE.read_text().partition(f"\n## {title}\n")
    assert found, title
    return rest.partition("\n## ")[0]


def steps(title: str) -> list[Step]:
    """The actions of a section's numbered list, in order."""
    items = re.findall(r"^\d+\. (.+?)(?=^\d+\. |^\S|^ {4}|\Z)", section(title), re.M | re.S)
    found: list[Step] = []
    for item in items:
        verb = "open"  # a page that the reader is on already
        for token in TOKEN.finditer(re.sub(r"\s+", " ", item)):
            if token["verb"]:
                verb = token["verb"].lower()
                found += [Step("close")] if verb == "close" else []
            elif token["field"]:
                found[-1] = found[-1]._replace(field=token["field"])
            else:
                text = token["target"] or token["seen"]
                found.append(Step("see" if token["seen"] else verb, text))
    return found


def take(screen: Screen, step: Step) -> None:
    """Do one step.

    Raises:
        AssertionError: what should be seen is not.
        playwright.sync_api.Error: there is nothing of that name to act on.
    """
    match step.verb:
        case "open" | "click":
            screen.click(step.text)
        case "tick":
            screen.tick(step.text)
        case "choose":
            screen.choose(step.field, step.text)
        case "write":
            screen.write(step.field, step.text)
        case "close":
            screen.close()
        case _:
            screen.shows(step.text)
