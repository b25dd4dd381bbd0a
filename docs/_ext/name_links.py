"""Link code spans of the Markdown pages that are a public name, such as `GeMPooler`, to its page.

The Markdown so reads well wherever it is shown, and the site leads on to the reference.
"""

from __future__ import annotations

from typing import Any

from api_pages import PACKAGES, documented
from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform


class NameLinks(SphinxPostTransform):
    """Put a reference around each literal that names something public."""

    default_priority = 5  # before the references are resolved

    def run(self, **kwargs: Any) -> None:
        """Replace the literals of a page that comes from Markdown."""
        if not self.env.doc2path(self.env.docname).endswith(".md"):
            return
        for literal in list(self.document.findall(nodes.literal)):
            target = _target(literal.astext())
            if target is None or isinstance(literal.parent, nodes.reference | addnodes.pending_xref):
                continue
            reference = addnodes.pending_xref(
                "",
                refdomain="py",
                reftype="obj",
                reftarget=target,
                refexplicit=True,
                refwarn=False,
                refdoc=self.env.docname,
            )
            literal.replace_self(reference)
            reference += literal


def _target(text: str) -> str | None:
    """Return the full name of what a code span names: a class by its own name, a function after its package's."""
    names = _names()
    return names.get(text) or names.get(text.partition("(")[0] if text[:1].isupper() else text)


_KNOWN: dict[str, str] = {}


def _names() -> dict[str, str]:
    if not _KNOWN:
        for full in documented():
            _, package, *rest = full.split(".")
            short = ".".join(rest)
            _KNOWN[full] = full
            if package in PACKAGES:
                _KNOWN[f"{package}.{short}"] = full
            if short[:1].isupper() or "_" in short:
                # a name in two packages, such as `evaluate`, needs its package
                _KNOWN[short] = full if short not in _KNOWN else ""
    return _KNOWN


def setup(app: Any) -> dict[str, bool]:
    """Register the transform."""
    app.add_post_transform(NameLinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
