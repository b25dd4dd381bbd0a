"""What every ``bench_*.py`` uses: a measurement in turns with its baseline.

    python benchmarks/speed.py                                       # all of them, and benchmarks/results/speed.md
    python -m pytest benchmarks/bench_pooling.py -k gem    # some

pytest-benchmark times, repeats and stores. A figure is a ratio to a named baseline, and the two are measured in turns,
round by round, so that a machine that slows down slows both down.
"""

import time
from collections.abc import Callable

import pytest


@pytest.fixture
def against(benchmark):
    """Return ``run(function, baseline, ...)``, which times both in turns and returns the ratio of the best times."""

    def run(
        function: Callable,
        baseline: Callable,
        *,
        table: str,
        row: str,
        column: str,
        to: str,
        limit: float | None = None,
        rounds: int = 5,
        seconds: float = 1.0,
        note: str = "",
    ) -> float:
        """Time a function against its baseline.

        Parameters
        ----------
        function, baseline : callable without arguments
            What is measured, and what it is compared with. Each is called once before.
        table, row, column : str
            Where the figure stands in speed.md: the heading of the table, the row and the column.
        to : str
            Name of the baseline, in words: "one pass", "bare product and top-k".
        limit : float, optional
            The ratio that must not be exceeded.
        rounds : int
            Rounds at least.
        seconds : float
            Rounds are made until this time is spent.
        note : str
            What a reader must know of this figure.
        """
        clock = benchmark._timer
        function(), baseline()  # first calls allocate, compile and read
        begin = time.perf_counter()
        function(), baseline()
        once = time.perf_counter() - begin
        rounds = max(rounds, min(200, int(seconds / max(once, 1e-9))))
        baseline_times: list[float] = []

        def timed_baseline():
            start = clock()
            baseline()
            baseline_times.append(clock() - start)

        benchmark.pedantic(function, setup=timed_baseline, rounds=rounds)
        ratio = benchmark.stats.stats.min / min(baseline_times)
        benchmark.extra_info.update(
            table=table, row=row, column=column, to=to, limit=limit, note=note,
            seconds=benchmark.stats.stats.min, baseline_seconds=min(baseline_times), ratio=ratio,
        )  # fmt: skip
        return ratio

    return run
