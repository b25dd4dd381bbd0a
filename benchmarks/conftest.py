"""What every ``bench_*.py`` uses: a measurement in turns with its baseline.

    python benchmarks/speed.py                             # all of them, and benchmarks/results/speed.md
    python -m pytest benchmarks/bench_pooling.py -k GeM    # some
    python -m pytest benchmarks --quick                    # one round of each: does everything run?

pytest-benchmark times, repeats and stores. A figure is a ratio to a named baseline, and the two are measured in turns,
round by round, so that a machine that slows down slows both down.
"""

import time
from collections.abc import Callable

import pytest


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="one round each, and nothing marked slow")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes minutes, left out by --quick")


def pytest_collection_modifyitems(config, items):
    if config.getoption("quick"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.fixture
def against(benchmark, request):
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
        warm: bool = True,
        before: Callable = lambda: None,
    ) -> float:
        """Time a function against its baseline.

        Parameters
        ----------
        function, baseline : callable without arguments
            What is measured, and what it is compared with.
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
        warm : bool
            Whether both are called before, twice: first calls allocate, compile and read, second ones tell how long
            a round takes. False for what takes so long that this does not matter: there are `rounds` rounds then.
        before : callable without arguments
            Called before every call of both, untimed: both then find the same state, of the caches say.

        Notes
        -----
        The clock is the benchmark's: ``@pytest.mark.benchmark(timer=time.thread_time)`` changes it.
        """
        clock = benchmark._timer
        baseline_times: list[float] = []

        def time_baseline():
            before()
            start = clock()
            baseline()
            baseline_times.append(clock() - start)
            before()

        if request.config.getoption("quick"):
            rounds = 1
        elif warm:
            for _ in range(2):
                begin = time.perf_counter()
                time_baseline()
                function()
            baseline_times.clear()
            once = time.perf_counter() - begin
            rounds = max(rounds, min(200, int(seconds / once)))
        benchmark.pedantic(function, setup=time_baseline, rounds=rounds)
        ratio = benchmark.stats.stats.min / min(baseline_times)
        benchmark.extra_info.update(
            table=table, row=row, column=column, to=to, limit=limit, note=note,
            seconds=benchmark.stats.stats.min, baseline_seconds=min(baseline_times), ratio=ratio,
        )  # fmt: skip
        return ratio

    return run
