"""What is shown on a terminal: names that must not steer it, and bars."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


def printable(text: str) -> str:
    r"""Return a text as it may be printed: what could steer a terminal, break a line, or is no text, is escaped.

    Examples
    --------
    >>> from skretrieval._terminal import printable
    >>> printable("caf\udce9/new\nline.jpg")
    'caf\\udce9/new\\nline.jpg'
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


class _Bar(tqdm):
    monitor_interval = 0  # no thread that watches the bars; bars of other packages keep theirs


def progress_bar(*args: Any, **kwargs: Any) -> tqdm:
    """Return a bar of tqdm, to be made only where it is shown.

    One that is disabled would take tqdm's lock, which forked processes share: a worker killed while it holds the lock
    leaves its siblings waiting without end.

    Parameters
    ----------
    *args, **kwargs : object
        As tqdm takes them.

    Returns
    -------
    bar : tqdm
        Without a thread that watches it.
    """
    return _Bar(*args, **kwargs)
