from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mkdocs.exceptions import PluginError

from infra.docs_links import ROOT, on_page_markdown

PAGE: Any = SimpleNamespace(
    file=SimpleNamespace(abs_src_path=str(ROOT / "docs" / "decisions" / "index.md"))
)


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        ("[prefect.yaml](../../prefect.yaml)", "`prefect.yaml`"),
        ("[the deployments](../../prefect.yaml)", "the deployments (`prefect.yaml`)"),
        ("[gate](../gate.md)", "[gate](../gate.md)"),  # MkDocs checks it
        ("![picture](../../absent.png)", "![picture](../../absent.png)"),
    ],
)
def test_links_out_of_the_site_are_shown_as_code(link: str, shown: str) -> None:
    assert on_page_markdown(f"See {link}.", page=PAGE) == f"See {shown}."


@pytest.mark.parametrize("target", ["../../absent.py", "../../../outside"])
def test_a_link_to_no_file_of_the_repository_fails(target: str) -> None:
    with pytest.raises(PluginError, match="points to no file"):
        on_page_markdown(f"[x]({target})", page=PAGE)
    assert Path(ROOT).is_dir()
