from flows.demos.story import Story


def test_a_figure_that_differs_is_shown_and_fails_the_story() -> None:
    story = Story()
    assert not story.sound  # nothing was read back
    story.check("epochs redone", 0, 0)
    assert story.sound
    story.check("attempts", 2, 1)
    assert not story.sound
    _, figures = story.tables()
    assert list(figures.columns[3].cells) == ["ok", "[red]differs"]
