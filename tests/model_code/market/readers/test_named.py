import pytest

from model_code.errors import ConfigError
from model_code.market.readers.named import Named, absolute, split


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("databento:/data/x", Named("databento", "/data/x")),
        ("tardis:s3://bucket/x?y", Named("tardis", "s3://bucket/x?y")),
        ("parquet:/x?mapping=/y/m.yaml", Named("parquet", "/x", "/y/m.yaml")),
        ("parquet:x?mapping=a%20b.yaml", Named("parquet", "x", "a b.yaml")),
        ("lobster:rel", Named("lobster", "rel")),
        ("/data/x", None),
        ("s3://bucket/x", None),
        ("simulated:?seed=7", None),
        ("other:/x", None),
    ],
)
def test_the_parts_of_a_uri(uri, expected):
    assert split(uri) == expected


@pytest.mark.parametrize(
    "uri", ["parquet:/x?maping=/y", "parquet:/x?mapping=", "tardis:", "parquet:"]
)
def test_a_wrong_uri_is_refused(uri):
    with pytest.raises(ConfigError, match=r"no path|unknown parameter") as caught:
        split(uri)
    assert caught.value.where == uri
    assert uri.split(":")[0] in caught.value.remedy


def test_paths_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("parquet:x?mapping=m.yaml") == f"parquet:{tmp_path}/x?mapping={tmp_path}/m.yaml"
    assert absolute("lobster:s3://x") == "lobster:s3://x"
    assert absolute("memory://x") == "memory://x"
    assert split(absolute("databento:x")) == Named("databento", f"{tmp_path}/x")
