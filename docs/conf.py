"""Configuration of the documentation site: ``python -m sphinx -W --keep-going -b html docs docs/_build/html``.

``DOCS_OFFLINE=1`` builds without asking other projects for their inventories. Otherwise each is tried for some
seconds, and one that doesn't answer is left out: links into that project then become plain text, not warnings.
"""

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

from api_pages import entries_of, own_members, type_of  # noqa: E402

import skretrieval  # noqa: E402

project = "scikit-retrieval"
author = "The skretrieval developers"
copyright = author
version = release = skretrieval.__version__

extensions = [
    "api_pages",
    "name_links",
    "root_files",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
suppress_warnings = ["config.cache"]  # the functions that the templates call can't be pickled
if not (HERE.parent / "CONTRIBUTING.md").is_file():  # which the page includes
    exclude_patterns.append("contributing.md")
    suppress_warnings.append("toc.not_readable")

# ------------------------------------------------------------------ Markdown
myst_enable_extensions = ["dollarmath"]
myst_dmath_allow_space = False
myst_heading_anchors = 3

# ------------------------------------------------------------------ reference
autosummary_generate = True
autosummary_context = {"own_members": own_members, "type_of": type_of, "entries_of": entries_of}
toc_object_entries_show_parents = "hide"  # `fit`, not `NearestNeighborsRetriever.fit`, beside the page
autodoc_typehints = "none"  # the docstrings have them, with shapes
numpydoc_show_class_members = False  # the template of classes lists them

_SHAPE = re.compile(r"(?<=of shape )\([^)]*\)")


def escape_shapes(app, what, name, obj, options, lines):
    """Escape ``n_features_in_`` in the shapes of docstrings: a trailing underscore is a link in reStructuredText."""
    for number, line in enumerate(lines):
        lines[number] = _SHAPE.sub(lambda shape: re.sub(r"(\w)_(?=[,) ])", r"\1\\_", shape[0]), line)


def setup(app):
    """Connect what changes docstrings before numpydoc reads them."""
    app.connect("autodoc-process-docstring", escape_shapes, priority=100)


# ------------------------------------------------------------------ links into other projects
INVENTORIES = {
    "python": "https://docs.python.org/3/",
    "numpy": "https://numpy.org/doc/stable/",
    "scipy": "https://docs.scipy.org/doc/scipy/",
    "sklearn": "https://scikit-learn.org/stable/",
    "torch": "https://docs.pytorch.org/docs/stable/",
    "matplotlib": "https://matplotlib.org/stable/",
}


def _answers(address: str) -> bool:
    try:
        with urlopen(address + "objects.inv", timeout=5):
            return True
    except (URLError, OSError):
        return False


def _reachable(inventories: dict[str, str]) -> dict[str, tuple[str, None]]:
    if os.environ.get("DOCS_OFFLINE"):
        return {}
    with ThreadPoolExecutor(len(inventories)) as pool:
        answers = list(pool.map(_answers, inventories.values()))
    return {name: (address, None) for (name, address), there in zip(inventories.items(), answers) if there}


intersphinx_mapping = _reachable(INVENTORIES)
intersphinx_timeout = 10

# ------------------------------------------------------------------ examples
sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples"),
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"\.py$",  # every example is run
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": "api/backreferences",
    "doc_module": ("skretrieval",),
    "reference_url": {"skretrieval": None},
    "only_warn_on_example_error": False,
    "abort_on_example_error": True,
    "show_memory": False,
    "remove_config_comments": True,
    "default_thumb_file": str(HERE / "images" / "rmac.png"),
}

# ------------------------------------------------------------------ pages
html_theme = "pydata_sphinx_theme"
html_title = "scikit-retrieval"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": True,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}
html_sidebars = {"install": [], "changelog": [], "contributing": []}
