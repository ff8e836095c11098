import pickle

import cloudpickle

from flows.nightly import nightly
from tasks.runs.console import console


def test_a_console_is_the_other_processs_own() -> None:
    assert pickle.loads(pickle.dumps(console)) is console


def test_a_nightly_can_be_sent_to_a_worker() -> None:
    """Prefect sends the flow with each of its tasks."""
    assert cloudpickle.loads(cloudpickle.dumps(nightly)).name == "nightly"
