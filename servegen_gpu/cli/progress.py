"""A line of progress on a terminal, drawn by tqdm: nothing in pipes, and nothing with --quiet."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

EVERY_S, DELAY_S = 0.2, 0.5


class Progress:
    """How much there is of how much, a few times a second, and how long the rest takes.

    Parameters
    ----------
    options : Namespace
    what : str
        Things that are counted.
    """

    def __init__(self, options: argparse.Namespace, what: str) -> None:
        self.show, self.what = sys.stderr.isatty() and not options.quiet, what
        self._bar: Any = None

    def __call__(self, done: int, most: float | None, more: Callable[[], str] = str) -> None:
        """Show it; `most` may be an estimate, or not known, and `more` is asked for what else there is to say."""
        if not self.show:
            return
        if self._bar is None:
            self._bar = self._new(most)
        if self._bar is None:
            return
        self._bar.total = None if most is None else max(round(most), done)
        if self._bar.update(done - self._bar.n) and (said := more()):
            self._bar.set_postfix_str(said, refresh=False)  # shown the next time

    def _new(self, most: float | None) -> Any:
        """A bar, whose module is imported only now; none where it is not installed."""
        try:
            from tqdm.std import tqdm
        except ImportError:
            self.show = False
            return None
        tqdm.monitor_interval = 0  # no thread, which a fork would lose
        return tqdm(
            total=most,
            unit=f" {self.what}",
            unit_scale=most is None or most >= 1e5,
            file=sys.stderr,
            leave=False,
            dynamic_ncols=True,
            mininterval=EVERY_S,
            delay=DELAY_S,
        )

    def end(self) -> None:
        """Take the line away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
