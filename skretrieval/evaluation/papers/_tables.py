"""The papers' tables as data: what was printed, and how to run it."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from ... import recipes
from ...extraction import ConvFeatureExtractor

#: What the tables are of.
PAPERS = {
    "S000": "Zhao, Wu, Zhang, Liu, Toward improving image retrieval via global saliency weighted feature, "
    "ISPRS International Journal of Geo-Information 10(4):249, 2021",
    "S001": "Liao, Fan, Zheng, Lin, Cao, Image retrieval based on the weighted and regional integration of CNN "
    "features, KSII Transactions on Internet and Information Systems 16(3):894-907, 2022",
    "S002": "Wang, Zhu, Pang, Li, Li, Qian, Adaptive co-weighting deep convolutional features for object retrieval, "
    "ICME 2018",
    "S003": "Seddati, Dupont, Mahmoudi, Parian, Towards good practices for image retrieval based on CNN features, "
    "ICCV Workshops 2017",
    "S004": "Jeong, Choo, Seo, Cho, Regional deep feature aggregation for image retrieval, ICASSP 2017",
}
_SCALES = {"percent": 0.01, "fraction": 1.0, "score": 1.0}


@dataclass(frozen=True)
class TableRow:
    """One figure of one table.

    Parameters
    ----------
    paper, table, method : str
        Where it stands. S000 to S004 are the keys of ``PAPERS``.
    dimension, qe : str
        As printed; `qe` is empty without query expansion.
    dataset, metric : str
        What it is of: names as of :func:`evaluate`.
    printed, unit : str
        The figure as printed, and whether that is "percent", "fraction" or "score" (N-S).
    recipe : str
        Name of the recipe that is this method; empty where there is no counterpart.
    settings : dict
        Arguments of the recipe. "extractor" holds those of
        :class:`~skretrieval.extraction.ConvFeatureExtractor`; "evaluate" those of :func:`evaluate`.
    note : str
        What is wrong with the figure, or was guessed to run it.

    Notes
    -----
    Threads: any number may read it, for nothing changes it.
    """

    paper: str
    table: str
    method: str
    dimension: str
    qe: str
    dataset: str
    metric: str
    printed: str
    unit: str
    recipe: str
    settings: dict[str, Any]
    note: str

    @property
    def value(self) -> float:
        """The figure between 0 and 1 (N-S: 0 and 4)."""
        return float(self.printed) * _SCALES[self.unit]

    @property
    def evaluate_params(self) -> dict[str, Any]:
        """Arguments of :func:`evaluate`."""
        return dict(self.settings.get("evaluate", {}))

    def pipeline(self, extractor: Any = None) -> Pipeline:
        """Build the Pipeline of the row.

        Parameters
        ----------
        extractor : estimator, default=None
            In the place of the paper's network.

        Returns
        -------
        pipeline : Pipeline
            Unfitted.

        Raises
        ------
        ValueError
            If the row has no recipe.
        """
        return build(self.recipe, self.settings, extractor)

    def __str__(self) -> str:
        return f"{self.paper} {self.table}: {self.method}{f' + {self.qe}' if self.qe else ''}"


@dataclass(frozen=True)
class Sweep:
    """A parameter that a paper varied.

    Parameters
    ----------
    paper, table, method, parameter : str
        Where it stands, and what the paper calls the parameter.
    argument : str
        The parameter of the Pipeline.
    points : tuple
        Its values.
    printed : tuple of str
        The figure at each value as printed; empty strings where there is only a curve or a sentence.
    dataset, metric, unit, recipe, settings, note
        As of :class:`TableRow`.

    Notes
    -----
    Threads: any number may read it, for nothing changes it.
    """

    paper: str
    table: str
    method: str
    parameter: str
    argument: str
    points: tuple[Any, ...]
    printed: tuple[str, ...]
    dataset: str
    metric: str
    unit: str
    recipe: str
    settings: dict[str, Any]
    note: str

    @property
    def values(self) -> list[float | None]:
        """The figures between 0 and 1, None where none was printed."""
        return [float(text) * _SCALES[self.unit] if text else None for text in self.printed]

    def pipeline(self, extractor: Any = None) -> Pipeline:
        """Build the Pipeline whose `argument` is varied; see :meth:`TableRow.pipeline`."""
        return build(self.recipe, self.settings, extractor)

    def __str__(self) -> str:
        return f"{self.paper} {self.table}: {self.method}, {self.parameter}"


def paper_tables(papers: Collection[str] | None = None) -> list[TableRow]:
    """Return the figures of the main tables of the papers, in the order of print.

    Tables that compare with methods without a counterpart here have their rows too, without a recipe. S002's Table 2
    is missing: in the text that was transcribed it is a picture.

    Parameters
    ----------
    papers : collection of str, default=None
        Keys of ``PAPERS``; None for all.

    Returns
    -------
    rows : list of TableRow

    Raises
    ------
    ValueError
        If a paper is unknown.

    Examples
    --------
    >>> from skretrieval.evaluation import paper_tables
    >>> row = next(row for row in paper_tables(["S000"]) if row.method == "GSW")
    >>> str(row), row.dataset, row.printed
    ('S000 Table 5: GSW', 'oxford5k', '72.90')
    >>> row.pipeline().named_steps["pooler"].weights
    [0.6, 0.4]
    """
    rows = []
    for paper in _chosen(papers):
        for line in _lines(f"{paper}.csv"):
            line["printed"] = line.pop("value")
            settings = json.loads(line.pop("settings") or "{}")
            rows.append(TableRow(**line, settings=settings))
    return rows


def paper_sweeps(papers: Collection[str] | None = None) -> list[Sweep]:
    """Parameters that the papers varied, with what they found.

    Parameters
    ----------
    papers : collection of str, default=None
        Keys of ``PAPERS``; None for all.

    Returns
    -------
    sweeps : list of Sweep

    Raises
    ------
    ValueError
        If a paper is unknown.

    Examples
    --------
    >>> from skretrieval.evaluation import paper_sweeps
    >>> sweep = paper_sweeps(["S000"])[3]
    >>> str(sweep), sweep.points, sweep.printed
    ('S000 Table 10: SJW, rho', (1, 10, 100, 500), ('69.41', '69.51', '69.62', '68.60'))
    """
    chosen = _chosen(papers)
    found: dict[tuple, list[dict[str, str]]] = {}
    for line in _lines("sweeps.csv"):
        if line["paper"] in chosen:
            same = tuple(value for name, value in line.items() if name not in ("point", "value"))
            found.setdefault(same, []).append(line)
    sweeps = []
    for lines in found.values():
        shared = {
            name: value for name, value in lines[0].items() if name not in ("point", "value", "settings")
        }
        points = tuple(json.loads(line["point"]) for line in lines)
        printed = tuple(line["value"] for line in lines)
        settings = json.loads(lines[0]["settings"])
        sweeps.append(Sweep(**shared, points=points, printed=printed, settings=settings))  # type: ignore[arg-type]
    return sweeps


def build(recipe: str, settings: dict[str, Any], extractor: Any = None) -> Pipeline:
    """Build the Pipeline that some settings of a table stand for."""
    if not recipe:
        raise ValueError("this method has no counterpart among the recipes.")
    arguments = {name: value for name, value in settings.items() if name != "evaluate"}
    network = arguments.pop("extractor", None)
    if extractor is not None:
        arguments["extractor"] = extractor
    elif network is not None:
        arguments["extractor"] = ConvFeatureExtractor(**network)
    pipeline = getattr(recipes, recipe)(**arguments)
    if (
        recipe == "multi_resolution_pfa"
        and network is not None
        and len(np.atleast_1d(network["layers"])) == 1
    ):
        # the paper's intermediate results are of one map, which there is nothing to combine with
        pipeline.set_params(pooler=pipeline.named_steps["pooler"].poolers)
    return pipeline


def _chosen(papers: Collection[str] | None) -> list[str]:
    unknown = sorted(set(papers or ()) - set(PAPERS))
    if unknown:
        raise ValueError(f"unknown papers {unknown}; there are {', '.join(PAPERS)}.")
    return [paper for paper in PAPERS if papers is None or not papers or paper in papers]


def _lines(name: str) -> Iterator[dict[str, str]]:
    text = (files(__package__) / "tables" / name).read_text(encoding="utf-8")
    yield from csv.DictReader(text.splitlines())
