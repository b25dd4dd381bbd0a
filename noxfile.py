"""What a contributor runs: ``nox`` for lint, types and tests, ``nox -s NAME`` for one of the sessions.

Arguments after ``--`` go to the tool: ``nox -s tests -- tests/pooling -k GeM``.
"""

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True


@nox.session
def tests(session):
    """Run the tests on the latest versions; ``-- --cov`` measures coverage."""
    session.install("-e", ".[test]")
    session.run("pytest", "-q", "-n", "2", *session.posargs)


@nox.session
def oldest(session):
    """Run the tests on the oldest supported versions of every dependency: the floors of pyproject.toml."""
    pins = session.run("python", ".ci/oldest.py", silent=True)
    session.install(*pins.split())
    session.install("--no-deps", "-e", ".")
    session.run("pytest", "-q", "-n", "2", *session.posargs)


@nox.session
def lint(session):
    """Run every hook of .pre-commit-config.yaml on every file."""
    session.install("pre-commit")
    session.run("pre-commit", "run", "--all-files", "--show-diff-on-failure", *session.posargs)


@nox.session
def types(session):
    """Check the types."""
    session.install("-e", ".[dev]")
    session.run("mypy", *session.posargs)


@nox.session
def docs(session):
    """Build the documentation in build/docs; a warning is an error."""
    session.install("-e", ".[docs]")
    session.run(
        "python", "-m", "sphinx", "-W", "--keep-going", "-b", "html", "docs", "build/docs", *session.posargs
    )


@nox.session
def bench(session):
    """Measure the speed; without arguments one quick round of everything, which writes nothing."""
    session.install("-e", ".[bench]")
    session.run("python", "benchmarks/speed.py", *(session.posargs or ["--quick"]))
