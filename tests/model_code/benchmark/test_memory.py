import numpy as np

from model_code.benchmark import memory


def test_the_peak_is_counted_although_it_is_freed():
    def work():
        big = np.ones(256 << 17)  # 256 MiB
        return float(big[:3].sum())

    result, peak = memory.peak_mib(work)
    assert result == 3.0
    assert peak is not None
    assert 220 < peak < 320


def test_the_peak_is_none_if_the_system_does_not_report_it(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "absent" / "clear_refs")
    assert memory.peak_mib(lambda: "done") == ("done", None)
