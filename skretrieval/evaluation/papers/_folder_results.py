"""Figures found on a folder, beside the papers' figures."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from scipy.stats import spearmanr

from ..._io import write_text
from .._results import Evaluation, aligned, finite
from ._tables import Sweep

_SHOWN = 3  # figures of a method that are printed; the JSON has all


@dataclass
class FolderRow:
    """A method, its figures in the papers, and ours on the folder."""

    name: str
    recipe: str
    printed: dict[tuple[str, str], float]  # by table and data set
    ours: float
    standard_error: float
    key: str  # equal where two rows are the same here, such as dimensions that the folder is too small for


@dataclass
class FolderSweep:
    """A parameter that was varied: the papers' figures, and ours."""

    sweep: Sweep
    ours: list[float]
    spread: list[float]

    @property
    def correlation(self) -> float | None:
        """Spearman's rank correlation between the paper and the folder, None where no figures are printed."""
        values = self.sweep.values
        return None if None in values else rank_correlation(values, self.ours)


@dataclass
class FolderReproduction:
    """The papers' methods on a folder.

    Parameters
    ----------
    head : str
        What was run.
    rows : list of FolderRow
        Methods.
    sweeps : list of FolderSweep
        Parameters.
    skipped : dict of str to str
        What was left out, and why.
    notes : list of str
        What was done otherwise than in the papers, and warnings.
    evaluations : list of Evaluation
        Two for each method, one for each half of the folder.

    Notes
    -----
    Threads: any number may read it, for nothing changes it.
    """

    head: str = ""
    rows: list[FolderRow] = field(default_factory=list)
    sweeps: list[FolderSweep] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)

    def trends(self) -> list[tuple[str, str, int, float]]:
        """Rank correlation of the methods between each column of a table and the folder.

        Returns
        -------
        trends : list of (table, data set, number of methods, Spearman's coefficient)
            For columns with at least three methods.
        """
        found = []
        for column in dict.fromkeys(key for row in self.rows for key in row.printed):
            # of rows that are the same here the last one counts, which has the largest dimension
            pairs = list(
                {
                    row.key: (row.printed[column], row.ours) for row in self.rows if column in row.printed
                }.values()
            )
            if len(pairs) >= 3:
                found.append((*column, len(pairs), rank_correlation(*zip(*pairs, strict=True))))
        return found

    def to_json(self, path: Any = None) -> str:
        """Write everything as JSON, and return the text.

        Parameters
        ----------
        path : path, default=None
            The file to write; None for none.

        Returns
        -------
        text : str
        """
        rows = [
            {**vars(row), "printed": [[*key, value] for key, value in row.printed.items()]}
            for row in self.rows
        ]
        sweeps = [
            {**vars(one.sweep), "ours": one.ours, "spread": one.spread, "correlation": one.correlation}
            for one in self.sweeps
        ]
        content = {
            "format": "skretrieval reproduction on a folder",
            "format_version": 1,
            "head": self.head,
            "rows": rows,
            "sweeps": sweeps,
            "skipped": self.skipped,
            "notes": self.notes,
            "evaluations": [json.loads(one.to_json())["evaluations"][0] for one in self.evaluations],
        }
        text = json.dumps(finite(content), indent=1, ensure_ascii=False, allow_nan=False)
        if path is not None:
            write_text(path, text + "\n")
        return text

    def __str__(self) -> str:
        lines = [self.head]
        if self.rows:
            table = [["method", "recipe", "ours", "papers"]]
            for row in self.rows:
                shown = dict.fromkeys(f"{name} {_figure(value)}" for (_, name), value in row.printed.items())
                printed = ", ".join(list(shown)[:_SHOWN])
                table.append(
                    [row.name, row.recipe, f"{100 * row.ours:.2f} ± {100 * row.standard_error:.2f}", printed]
                )
            lines += ["", *aligned(table)]
            lines += ["", "Order of the methods, papers against folder (Spearman's rank correlation)"]
            trends = [[where, name, f"{n} methods", f"{rho:+.2f}"] for where, name, n, rho in self.trends()]
            lines += aligned(trends) if trends else ["  fewer than three methods of a table were run"]
        for one in self.sweeps:
            lines += ["", f"{one.sweep} ({one.sweep.dataset} in the paper)"]
            values = ["-" if value is None else f"{100 * value:.2f}" for value in one.sweep.values]
            ours = [f"{100 * value:.2f}" for value in one.ours]
            points = [json.dumps(point) for point in one.sweep.points]
            lines += aligned([["value", *points], ["paper", *values], ["ours", *ours]])
            if one.correlation is not None:
                lines.append(f"rank correlation {one.correlation:+.2f}, {_best(one)}")
        lines += (
            ["", *(f"Left out: {name}: {why}" for name, why in self.skipped.items())] if self.skipped else []
        )
        lines += ["", *(f"Note: {note}" for note in self.notes)] if self.notes else []
        return "\n".join(lines)


def rank_correlation(first: Any, second: Any) -> float:
    """Spearman's rank correlation; 0 where one side is constant."""
    if len(set(first)) < 2 or len(set(second)) < 2:
        return 0.0
    return float(spearmanr(first, second).statistic)


def _figure(value: float) -> str:
    """Show a share in percent, and an N-S score as it is."""
    return f"{value:.2f}" if value > 1 else f"{100 * value:.2f}"


def _best(one: FolderSweep) -> str:
    """Say at which value each is best."""
    values: Any = one.sweep.values
    points = one.sweep.points
    theirs = points[max(range(len(points)), key=lambda place: values[place])]
    ours = points[max(range(len(points)), key=lambda place: one.ours[place])]
    return f"best at {json.dumps(theirs)} in the paper, at {json.dumps(ours)} here"
