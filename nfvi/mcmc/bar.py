"""The progress bar of chains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nfvi.mcmc.chain import OnDraw
from nfvi.utils import progress_bar, progress_wanted

__all__ = ["draw_bar"]


@contextmanager
def draw_bar(progress: bool | None, label: str, total: int) -> Iterator[OnDraw]:
    """What to call after every draw or chain, with a progress bar behind it where one is wanted."""
    if not progress_wanted(progress):
        yield lambda stage: None
        return
    with progress_bar(total, label) as bar:

        def on_draw(stage: str) -> None:
            bar.set_postfix_str(stage, refresh=False)
            bar.update()

        yield on_draw
