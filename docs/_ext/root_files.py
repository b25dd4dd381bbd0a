"""Include files of the repository's root, such as CHANGELOG.md, with links that lead somewhere from the site.

MyST's own include leaves a link to a file that is no page as it is, which is a warning.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

_INCLUDE = re.compile(r"^```\{include\} \.\./([\w.]+)\n```$", re.MULTILINE)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def included(text: str, root: Path) -> str:
    """Return the text of a page with the files of the root in the place of its include directives."""
    return _INCLUDE.sub(lambda directive: _relinked((root / directive[1]).read_text("utf-8"), root), text)


def _relinked(text: str, root: Path) -> str:
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    source = project.get("urls", {}).get("Source")
    pages = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}

    def link(found: re.Match) -> str:
        picture, shown, target, anchor = found[1], found[2], found[3].removeprefix("./"), found[4] or ""
        if target.startswith("docs/"):
            return f"{picture}[{shown}]({target.removeprefix('docs/')}{anchor})"
        if target in pages:
            return f"[{shown}]({pages[target]}{anchor})"
        return f"[{shown}]({source}/blob/main/{target}{anchor})" if source else shown

    return _LINK.sub(link, text)


def _read(app: Any, docname: str, source: list[str]) -> None:
    root = Path(app.srcdir).parent
    for directive in _INCLUDE.finditer(source[0]):
        app.env.note_dependency(str(root / directive[1]))
    source[0] = included(source[0], root)


def setup(app: Any) -> dict[str, bool]:
    """Connect to the reading of pages."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
