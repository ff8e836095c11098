from builders import ticks
def test_x():
    assert ticks(5).num_rows == 5
