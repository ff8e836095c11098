"""The frame of Tickline's own pages."""

import itertools
import re
from pathlib import Path

import jinja2
import pytest

from model_code.pages.page import environment, inline, stylesheet, switchable

AA = 4.5  # WCAG 2.1, 1.4.3: contrast of text below 24 px
ON_PAPER = ("ink", "soft", "accent")
ON_ITSELF = ("pass", "warn", "fail")
GRAPHICS = 3.0  # WCAG 2.1, 1.4.11: what is needed to understand a picture
SERIES = tuple(f"s{number}" for number in range(1, 8))


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.1) of `#rgb` or `#rrggbb`."""
    digits = "".join(2 * one for one in colour) if len(colour) == 3 else colour
    parts = [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def palettes() -> list[dict[str, str]]:
    """The colours of the modes light, dark and print, by name."""
    roots = re.findall(r":root \{(.*?)\}", stylesheet(), re.DOTALL)
    return [dict(re.findall(r"--([\w-]+):#([0-9a-f]{3,6})", root)) for root in roots]


def test_contrast_is_computed_by_the_formula() -> None:
    assert contrast("000", "ffffff") == pytest.approx(21.0)
    assert contrast("777777", "fff") == pytest.approx(4.48, abs=0.01)


def test_text_has_enough_contrast_in_every_mode() -> None:
    found = palettes()
    assert len(found) == 3
    for colours in found:
        pairs = [*itertools.product(ON_PAPER, ("paper", "back"))]
        pairs += [(name, f"{name}-back") for name in ON_ITSELF]
        for text, ground in pairs:
            ratio = contrast(colours[text], colours[ground])
            assert ratio >= AA, f"{text} on {ground}: {ratio:.2f}"


def test_lines_and_bars_of_pictures_have_enough_contrast_in_every_mode() -> None:
    for colours in palettes():
        for name in SERIES:
            ratio = contrast(colours[name], colours["paper"])
            assert ratio >= GRAPHICS, f"{name}: {ratio:.2f}"


def test_a_page_carries_the_stylesheet_and_loads_nothing(tmp_path: Path) -> None:
    (tmp_path / "one.html.j2").write_text(
        '{% extends "base.html.j2" %}{% block title %}A & B{% endblock %}'
        "{% block content %}<h1>{{ name }}</h1>{% endblock %}"
    )
    page = environment(tmp_path).get_template("one.html.j2").render(name="<b>")
    assert stylesheet() in page
    assert "<h1>&lt;b&gt;</h1>" in page
    assert '<html lang="en">' in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "url(" not in page


def test_a_page_without_a_title_or_a_name_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "one.html.j2").write_text('{% extends "base.html.j2" %}')
    with pytest.raises(jinja2.TemplateRuntimeError, match="title"):
        environment(tmp_path).get_template("one.html.j2").render()
    (tmp_path / "two.html.j2").write_text("{{ unknown }}")
    with pytest.raises(jinja2.UndefinedError, match="unknown"):
        environment(tmp_path).get_template("two.html.j2").render()


def test_a_picture_becomes_an_address() -> None:
    assert inline(b"abc") == "data:image/png;base64,YWJj"


def test_a_switch_decides_over_the_system_on_screens_only() -> None:
    light, dark, _ = palettes()
    added = switchable().removeprefix(stylesheet())
    assert added.startswith("@media screen {")
    for name, colours in (("light", light), ("dark", dark)):
        (rule,) = re.findall(rf':root\[data-theme="{name}"\] \{{(.*?)\}}', added, re.DOTALL)
        assert dict(re.findall(r"--([\w-]+):#([0-9a-f]{3,6})", rule)) == colours
        assert f"color-scheme:{name};" in rule
