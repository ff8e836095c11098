import numpy as np
import pytest

from model_code.errors import IntegrityError, ServingError
from model_code.repository.requests import GoldenSet
from model_code.serving.client import TritonClient
from model_code.serving.golden import prove


@pytest.fixture
def client(url):
    with TritonClient(url) as client:
        yield client


def test_a_recorded_set_verifies_only_its_own_version(client, x_NTF, tmp_path):
    many_NTF = np.concatenate([x_NTF, x_NTF[:7]])  # more than one request
    recorded = GoldenSet.record(lambda x_BTF: client.predict(x_BTF, version=1), many_NTF, 1e-5)
    recorded.save(tmp_path / "golden.npz")
    golden = GoldenSet.load(tmp_path / "golden.npz")
    assert golden.tolerance == 1e-5
    np.testing.assert_array_equal(golden.logits_NC, recorded.logits_NC)
    prove(client, golden, version=1)
    with pytest.raises(ServingError, match="answered wrongly"):
        prove(client, golden, version=2)
    with pytest.raises(ServingError, match="NOT_FOUND"):
        prove(client, golden, version=3)


def test_one_wrong_response_among_many_is_detected(client, x_NTF, expected):
    logits_NC = expected[2].copy()
    prove(client, GoldenSet(x_NTF, logits_NC, 1e-3))
    logits_NC[-1, 1] += 0.002
    with pytest.raises(ServingError, match=r"off by 0\.002"):
        prove(client, GoldenSet(x_NTF, logits_NC, 1e-3))
    logits_NC[-1, 1] = np.nan
    with pytest.raises(ServingError, match="off by nan"):
        prove(client, GoldenSet(x_NTF, logits_NC, 1e-3))


def test_an_empty_set_is_refused(client, x_NTF, expected):
    with pytest.raises(ServingError, match="empty"):
        prove(client, GoldenSet(x_NTF[:0], expected[2][:0], 1e-3))


@pytest.mark.parametrize("content", [b"", b"not a zip"])
def test_a_broken_file_is_refused(content, tmp_path):
    path = tmp_path / "golden.npz"
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="golden set"):
        GoldenSet.load(path)
    with pytest.raises(IntegrityError, match="golden set"):
        GoldenSet.load(tmp_path / "absent.npz")


def test_objects_in_the_file_are_not_unpickled(tmp_path):
    path = tmp_path / "golden.npz"
    np.savez(path, x_NTF=np.array([object()]), logits_NC=np.zeros(1), tolerance=1.0)
    with pytest.raises(IntegrityError, match="golden set"):
        GoldenSet.load(path)
