"""Templates of Tickline's own pages: each extends `base.html.j2`, which carries the stylesheet."""

import base64
import re
from pathlib import Path

import jinja2
from markupsafe import Markup

FOLDER = Path(__file__).parent


def stylesheet() -> str:
    """The text of the one stylesheet, for a page that is not a template."""
    return (FOLDER / "style.css").read_text(encoding="utf-8")


def switchable() -> str:
    """The stylesheet for a page with a switch: `data-theme` of its root, dark or light, decides."""
    light, dark, _ = re.findall(r":root \{(.*?)\}", stylesheet(), re.DOTALL)
    light, dark = light.replace("light dark", "light"), f"color-scheme:dark; {dark}"
    rules = "".join(
        f':root[data-theme="{name}"] {{ {colours} }}\n'
        for name, colours in (("light", light), ("dark", dark))
    )
    return f"{stylesheet()}@media screen {{\n{rules}}}\n"


def environment(folder: Path) -> jinja2.Environment:
    """The templates of a folder, and the frame `base.html.j2` that they extend.

    Args:
        folder: of the page's own templates.

    Returns:
        An environment that escapes every value and refuses names that have none.
    """
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, FOLDER]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals["style"] = Markup(stylesheet())  # noqa: S704  our own file
    return found


def inline(picture: bytes) -> str:
    """A PNG picture as the address of an `img`, so that the page stays one file."""
    return "data:image/png;base64," + base64.b64encode(picture).decode()
