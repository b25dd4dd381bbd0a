"""Where the documentation is, and the link to it in the HTML representation of estimators."""

#: The documentation of the development version; every public name has the page ``api/generated/PACKAGE.NAME.html``.
DOCUMENTATION = "https://scikit-retrieval.readthedocs.io/en/latest"


class DocLinkMixin:
    """Let scikit-learn's HTML representation link to the page of the estimator.

    To be named before ``BaseEstimator``. scikit-learn fills the template with the class's name and its module up to
    the first private part, which is the package that the class is public in.
    """

    _doc_link_module = "skretrieval"
    _doc_link_template = DOCUMENTATION + "/api/generated/{estimator_module}.{estimator_name}.html"
