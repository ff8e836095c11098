"""Buffers that are allocated once, on the CPU: the same code, but nothing is pinned."""

import numpy as np
import pytest
import torch

from model_code.engines.pinned import Buffers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_windows_are_sent_in_the_type_of_the_device_and_to_the_same_memory(
    dtype: torch.dtype,
) -> None:
    buffers = Buffers("cpu", dtype)
    x_BTF = np.random.default_rng(0).normal(size=(64, 64, 16)).astype(np.float32)
    for count in (64, 3, 1):
        sent_BTF = buffers.send(torch.from_numpy(x_BTF[:count]))
        assert (sent_BTF.dtype, len(sent_BTF)) == (dtype, count)
        assert sent_BTF.data_ptr() == buffers.windows.data_ptr()
        np.testing.assert_array_equal(
            sent_BTF.numpy(), x_BTF[:count].astype(sent_BTF.numpy().dtype)
        )


def test_an_answer_is_not_overwritten_by_the_next_one() -> None:
    buffers = Buffers("cpu")
    first_BC = buffers.receive(torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float16))
    second_BC = buffers.receive(torch.tensor([[5.0, 6.0]]))
    assert first_BC.dtype == second_BC.dtype == np.float32
    assert first_BC.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert second_BC.tolist() == [[5.0, 6.0]]
