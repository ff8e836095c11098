import pytest
from pydantic import ValidationError

from model_code.settings import Settings
from model_code.settings.cluster import local_workers


@pytest.mark.parametrize(
    "text",
    [
        "processes:2",
        "dask:16",
        "ray:2",
        "tcp://10.0.0.1:8786",
        "tls://scheduler:8786",
        "ray://10.0.0.1:10001",
    ],
)
def test_clusters_are_taken_as_they_are(text: str) -> None:
    assert Settings(cluster=text).cluster == text


def test_no_cluster_is_the_default() -> None:
    assert Settings().cluster is None


@pytest.mark.parametrize(
    "text",
    [
        "dask",
        "dask:0",
        "dask:-1",
        "threads:2",
        "http://h:1",
        "tcp://h",
        "tcp://h:x",
        "ray",
        "ray:0",
        "ray://h",
        " ",
    ],
)
def test_anything_else_is_refused_with_what_would_do(text: str) -> None:
    with pytest.raises(ValidationError, match="is no cluster: use processes:N, dask:N or ray:N"):
        Settings(cluster=text)


@pytest.mark.parametrize(
    ("text", "workers"), [("processes:2", 2), ("ray:16", 16), ("ray://h:10001", None)]
)
def test_the_number_of_workers_is_known_of_those_here(text: str, workers: int | None) -> None:
    assert local_workers(text) == workers
