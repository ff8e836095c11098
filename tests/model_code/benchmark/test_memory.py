import numpy as np
import torch

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


def test_memory_of_the_gpu_is_what_is_no_longer_free():
    free = iter([10 << 30, (10 << 30) - (300 << 20)])
    assert memory.gpu_mib(lambda: "loaded", lambda: next(free)) == ("loaded", 300.0)
    more = iter([1 << 30, 2 << 30])  # another process ended meanwhile
    assert memory.gpu_mib(lambda: "loaded", lambda: next(more)) == ("loaded", 0.0)


def test_memory_of_the_gpu_is_none_without_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert memory.gpu_mib(lambda: "loaded") == ("loaded", None)


def test_memory_of_the_gpu_is_read_from_torch(monkeypatch):
    seen = iter([(5 << 20, 9 << 20), (3 << 20, 9 << 20)])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: next(seen))
    assert memory.gpu_mib(lambda: "loaded") == ("loaded", 2.0)
