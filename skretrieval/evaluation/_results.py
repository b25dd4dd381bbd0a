"""What an evaluation found: figures, settings, tables, and the file that holds them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from .._io import write_text
from ..metrics import randomization_test

FORMAT = "skretrieval evaluation"
FORMAT_VERSION = 2  # since 2 hashes of collections are of the content of files
SIGNIFICANT = 0.05


@dataclass
class Evaluation:
    """The figures of one Pipeline on one collection, and everything that they depend on.

    Parameters
    ----------
    record : dict
        What the file holds: ``name``, ``pipeline`` (every parameter of every step), ``dataset``, ``whitening_set``,
        ``overlap``, ``fitted_on``, ``unwhitened``,
        ``distractors``, ``options``, ``versions``, ``device``, ``dtype``, ``weights_fingerprint``,
        ``failed``, ``seconds``, ``metrics`` and ``per_query``.
    pipeline : Pipeline, default=None
        The fitted Pipeline: what it learned is frozen, so that ``fit`` indexes another gallery without learning
        anew. Not in the file.

    Notes
    -----
    Threads: any number may read it, for nothing changes it.

    Examples
    --------
    >>> from skretrieval.evaluation import Evaluation
    >>> record = {"name": "mac", "metrics": {"map": {"mean": 0.75, "standard_error": 0.25, "n_queries": 2}},
    ...           "per_query": {"map": [0.5, 1.0]}, "dataset": {"name": "birds", "n_images": 8, "n_queries": 2}}
    >>> print(Evaluation(record))
    birds: 8 images, 2 queries
    method  map
    mac     0.7500 ± 0.2500
    """

    record: dict[str, Any]
    pipeline: Any = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """What the Pipeline is called."""
        return self.record["name"]

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """For each figure ``mean``, and ``standard_error`` and ``n_queries`` where there are any."""
        return self.record["metrics"]

    @property
    def per_query(self) -> dict[str, np.ndarray]:
        """The figures of each query; NaN where a query has no positive."""
        return {
            name: np.array([math.nan if value is None else value for value in values])
            for name, values in self.record["per_query"].items()
        }

    def differences(self, other: Evaluation) -> list[str]:
        """Tell in which figures, also of single queries, another evaluation differs: an empty list if in none."""
        found = []
        for name in sorted({*self.metrics, *other.metrics}):
            first, second = self.metrics.get(name), other.metrics.get(name)
            if not _same(first, second):
                found.append(f"{name}: {_shown(first)} and {_shown(second)}")
        for name in sorted({*self.per_query, *other.per_query}):
            mine, theirs = self.per_query.get(name), other.per_query.get(name)
            if mine is None or theirs is None or not np.array_equal(mine, theirs, equal_nan=True):
                found.append(f"{name}: differs for single queries")
        return found

    def to_json(self, path: str | os.PathLike | None = None) -> str:
        """Write the record as JSON, and return the text.

        Parameters
        ----------
        path : path, default=None
            The file to write; None for none.

        Returns
        -------
        text : str
        """
        return Comparison([self]).to_json(path)

    def __str__(self) -> str:
        return str(Comparison([self]))


@dataclass
class Comparison:
    """Several evaluations on the same collection, with tests of their differences.

    Parameters
    ----------
    evaluations : list of Evaluation
        On the same queries.

    Notes
    -----
    Threads: any number may read it, for nothing changes it.
    """

    evaluations: list[Evaluation]

    def __iter__(self) -> Iterator[Evaluation]:
        return iter(self.evaluations)

    def __len__(self) -> int:
        return len(self.evaluations)

    def __getitem__(self, name: str | int) -> Evaluation:
        if isinstance(name, int):
            return self.evaluations[name]
        return next(evaluation for evaluation in self.evaluations if evaluation.name == name)

    def p_values(self, metric: str) -> dict[tuple[str, str], float]:
        """Paired randomisation test between every two, by the figures of the queries.

        Parameters
        ----------
        metric : str
            One that has figures for each query.

        Returns
        -------
        p_values : dict of (str, str) to float
            Two-sided, for the pairs of names in the order of the evaluations; NaN where no query has a positive.
        """
        found = {}
        for one, two in combinations(self.evaluations, 2):
            mine, theirs = one.per_query[metric], two.per_query[metric]
            if np.any(~np.isnan(mine) & ~np.isnan(theirs)):
                found[one.name, two.name] = randomization_test(mine, theirs, random_state=0).p_value
            else:
                found[one.name, two.name] = math.nan
        return found

    def best(self, metric: str) -> str | None:
        """Name the evaluation that is better than every other one by more than chance (p < 0.05), if there is one.

        Every comparison must be significant, so that the claim needs no correction for their number.
        """
        if len(self.evaluations) < 2 or metric not in self.evaluations[0].per_query:
            return None
        if any(_missing(evaluation.metrics[metric]["mean"]) for evaluation in self.evaluations):
            return None
        leader = max(self.evaluations, key=lambda evaluation: evaluation.metrics[metric]["mean"])
        mine = [p for names, p in self.p_values(metric).items() if leader.name in names]
        return leader.name if max(mine) < SIGNIFICANT else None

    def to_json(self, path: str | os.PathLike | None = None) -> str:
        """Write all records as JSON, and return the text.

        Parameters
        ----------
        path : path, default=None
            The file to write; None for none.

        Returns
        -------
        text : str
        """
        content: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION}
        content["evaluations"] = [evaluation.record for evaluation in self.evaluations]
        if len(self.evaluations) > 1:
            content["p_values"] = {
                metric: [[*names, p] for names, p in self.p_values(metric).items()]
                for metric in self.evaluations[0].per_query
            }
        text = json.dumps(finite(content), indent=1, ensure_ascii=False, allow_nan=False)
        if path is not None:
            write_text(path, text + "\n")
        return text

    def table(self) -> list[list[str]]:
        """Rows of a table: the head, then a row for each evaluation; a star marks the significantly best.

        Precisions at more images than the gallery has are left out.
        """
        n_images = self.evaluations[0].record["dataset"]["n_images"]
        metrics = [metric for metric in self.evaluations[0].metrics if _depth(metric) <= n_images]
        best = {metric: self.best(metric) for metric in metrics}
        rows = [["method", *metrics]]
        for evaluation in self.evaluations:
            row = [evaluation.name]
            for metric in metrics:
                star = "*" if best[metric] == evaluation.name else ""
                row.append(_shown(evaluation.metrics.get(metric)) + star)
            rows.append(row)
        return rows

    def __str__(self) -> str:
        dataset = self.evaluations[0].record["dataset"]
        head = f"{dataset['name']}: {dataset['n_images']} images, {dataset['n_queries']} queries"
        lines = [head, *aligned(self.table())]
        for evaluation in self.evaluations:
            if text := evaluation.record.get("fitted_on", {}).get("told"):
                lines.append(f"{evaluation.name}: {text}")
        first = self.evaluations[0]
        undefined = [metric for metric in first.per_query if _missing(first.metrics[metric]["mean"])]
        if undefined:
            lines.append(f"{', '.join(undefined)}: no query has a positive in the gallery")
        if len(self.evaluations) > 1:
            lines.append(
                "± standard error over queries; * better than all others (paired randomisation test, p < 0.05)"
            )
        return "\n".join(lines)


def read_records(source: Any) -> list[dict[str, Any]]:
    """Read the records of a result file, or of an evaluation.

    Parameters
    ----------
    source : path, Evaluation or Comparison
        What ``to_json`` has written, or what it writes.

    Returns
    -------
    records : list of dict
        See :class:`Evaluation`; ``Evaluation(record)`` makes one of each.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds something else, or is of a later version.
    """
    if isinstance(source, Evaluation):
        return [source.record]
    if isinstance(source, Comparison):
        return [evaluation.record for evaluation in source]
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"No such file: {path}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is no result of `skretrieval evaluate`.")
    if content.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} is of version {content.get('format_version')}, this program reads {FORMAT_VERSION}."
        )
    return content["evaluations"]


def aligned(rows: list[list[str]]) -> list[str]:
    """Lay out the rows of a table in columns."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _shown(figure: dict[str, Any] | None) -> str:
    if figure is None or _missing(figure["mean"]):
        return "-"
    error = figure.get("standard_error")
    return f"{figure['mean']:.4f}" + (
        f" ± {error:.4f}" if error is not None and not math.isnan(error) else ""
    )


def _depth(metric: str) -> int:
    """Return the k of a precision at k, 0 for other figures."""
    _, at, kappa = metric.partition("p@")
    return int(kappa) if at else 0


def _same(first: Any, second: Any) -> bool:
    if first is None or second is None or first.keys() != second.keys():
        return False
    both = [(first[key], second[key]) for key in first]
    return all(one == two or (_missing(one) and _missing(two)) for one, two in both)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def finite(value: Any) -> Any:
    """Write NaN, which JSON lacks, as null."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.ndarray):
        return finite(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
