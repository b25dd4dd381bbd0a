"""Link code spans of the Markdown pages that are a public name, such as `GeMPooler`, to its page.

The Markdown so reads well wherever it is shown, and the site leads on to the reference. A card, that is a section
whose title is a public name, also gets a line that leads there.
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
        if not str(self.env.doc2path(self.env.docname)).endswith(".md"):
            return
        for literal in list(self.document.findall(nodes.literal)):
            target = _target(literal.astext())
            if target is not None and not isinstance(literal.parent, nodes.reference | addnodes.pending_xref):
                literal.replace_self(self._reference(target, literal.deepcopy()))
        for section in self.document.findall(nodes.section):
            title = section[0].astext()
            target = _target(title) or _names().get(f"recipes.{title}")
            signature = next(
                (i for i, node in enumerate(section) if isinstance(node, nodes.literal_block)), None
            )
            if target is not None and signature is not None:
                line = nodes.paragraph("", "In the reference: ")
                line += self._reference(target, nodes.literal(text=target))
                section.insert(signature + 1, line)

    def _reference(self, target: str, shown: nodes.Node) -> addnodes.pending_xref:
        reference = addnodes.pending_xref(
            "",
            refdomain="py",
            reftype="obj",
            reftarget=target,
            refexplicit=True,
            refwarn=False,
            refdoc=self.env.docname,
        )
        reference += shown
        return reference


def _target(text: str) -> str | None:
    """Return the full name of what a code span names: a class by its own name, a function after its package's."""
    names = _names()
    called = text.partition("(")[0]
    return names.get(text) or (names.get(called) if called[:1].isupper() or "." in called else None) or None


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
