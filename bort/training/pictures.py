"""Figures that become PNG files without a display."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bort.files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def picture(path: Path | str, width: float, height: float) -> Iterator[Figure]:
    """Yield an empty figure of ``width`` by ``height`` inches to draw in; then write it to ``path`` as PNG, whole or not at all.

    Raises:
        OSError: if the file cannot be written.
    """
    # The object interface, because pyplot keeps global state and may ask for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    yield figure
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=100, format="png")


def plain(text: str) -> str:
    """The text as it is: a dollar sign would start a formula."""
    return text.replace("$", r"\$")
