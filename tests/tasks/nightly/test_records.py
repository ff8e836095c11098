"""What stages depend on, and what they tell the reader."""

import datetime as dt

from model_code.artifacts import ArtifactRef
from model_code.settings import FeatureSpec
from tasks.nightly.records import (
    CleanDay,
    Plan,
    SourceDay,
    SplitWindows,
    Supplements,
)

DAY, NEXT = (
    SourceDay(market="m", date=dt.date(2024, 8, day), symbol="A", digest="d", simulated=False)
    for day in (8, 9)
)


def test_the_nights_notes_say_which_windows_were_sampled_by_class() -> None:
    sampling = "2,000 of 2,000 with an opportunity, 30,768 of 498,000 without, weighted"
    windows = ArtifactRef.of(name="split", sha256="0")
    found = SplitWindows(
        windows=windows, summary={"train": {"kept": 5}, "test": {"sampling": sampling}}
    )
    assert found.notes == (f"test windows: {sampling}",)
    assert SplitWindows(windows=windows, summary={"test": {"kept": 5}}).notes == ()


def test_a_stage_depends_on_what_its_set_needs_alone() -> None:
    names = ("depth A 2024-08-08", "depth A 2024-08-09", "exogenous/macro", "exogenous/other")
    plan = Plan(train=(DAY,), test=(NEXT,), warnings=(), supplements={name: name for name in names})
    day = CleanDay(date=DAY.date, symbol="A", ticks=ArtifactRef.of(name="clean", sha256="0"))
    assert Supplements.of(plan, FeatureSpec(), day) is None
    depth = Supplements.of(plan, FeatureSpec(feature_set="depth"), day)
    assert depth == Supplements(market="m", digests={names[0]: names[0]})
    series = FeatureSpec(feature_set="exogenous", exogenous=("macro.vix", "missing.x"))
    found = Supplements.of(plan, series, day)
    assert found == Supplements(market="m", digests={names[2]: names[2]})


def test_the_snapshots_digest_covers_depth_rows_and_tables() -> None:
    plain = Plan(train=(DAY,), test=(NEXT,), warnings=())
    with_depth = plain.model_copy(update={"supplements": {"depth A 2024-08-09": "1"}})
    with_table = plain.model_copy(update={"supplements": {"exogenous/macro": "1"}})
    changed = plain.model_copy(update={"supplements": {"exogenous/macro": "2"}})
    digests = [plan.digest for plan in (plain, with_depth, with_table, changed)]
    assert len(set(digests)) == 4
    before = with_depth.model_copy(update={"test": ()})  # the test day's rows are not used
    assert before.digest == plain.model_copy(update={"test": ()}).digest
