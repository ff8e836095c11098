import pytest
from pydantic import ValidationError

from model_code.settings import Settings


@pytest.mark.parametrize(
    "text", ["processes:2", "dask:16", "tcp://10.0.0.1:8786", "tls://scheduler:8786"]
)
def test_clusters_are_taken_as_they_are(text: str) -> None:
    assert Settings(cluster=text).cluster == text


def test_no_cluster_is_the_default() -> None:
    assert Settings().cluster is None


@pytest.mark.parametrize(
    "text", ["dask", "dask:0", "dask:-1", "threads:2", "http://h:1", "tcp://h", "tcp://h:x", " "]
)
def test_anything_else_is_refused_with_what_would_do(text: str) -> None:
    with pytest.raises(ValidationError, match="is no cluster: use processes:N, dask:N"):
        Settings(cluster=text)
