"""Instruments that look at each other."""

from model_code.live.groups import groups


def test_alone_each_instrument_is_a_group() -> None:
    assert groups({}, ["B", "A"]) == {"A": ("A",), "B": ("B",)}


def test_looking_at_others_joins_groups_directly_and_through_others() -> None:
    leaders = {"C": ("B",), "D": ("C",), "F": ("E",), "B": ("F",)}
    assert groups(leaders, ["D", "X"]) == {"B": ("B", "C", "D", "E", "F"), "X": ("X",)}


def test_the_key_does_not_depend_on_which_instruments_are_asked_for() -> None:
    leaders = {"C": ("B",), "D": ("B",), "B": ("A",)}
    assert list(groups(leaders, ["D"])) == list(groups(leaders, ["A", "C"])) == ["A"]
    assert groups(leaders, ["D"]) == {"A": ("A", "B", "D")}
    assert groups(leaders, ["A"]) == {"A": ("A",)}
