"""MkDocs hook: show links from docs/ to other files of the repository as code.

The site contains docs/ only. Such a link works in the repository but would be dead on the site.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>\.\./[^)#\s]+)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Rewrite the links of one page; MkDocs calls this for every page.

    Raises:
        PluginError: a link points to a file that the repository does not have.
    """
    source = Path(str(page.file.abs_src_path))

    def shown(link: re.Match[str]) -> str:
        target = (source.parent / link["target"]).resolve()
        if target.is_relative_to(ROOT / "docs"):
            return link[0]  # MkDocs checks it
        if not (target.is_relative_to(ROOT) and target.exists()):
            raise PluginError(f"{source.relative_to(ROOT)}: the link {link[0]} points to no file")
        name = target.relative_to(ROOT).as_posix()
        same = link["text"].strip("`") in {name, target.name}
        return f"`{name}`" if same else f"{link['text']} (`{name}`)"

    return LINK.sub(shown, markdown)
