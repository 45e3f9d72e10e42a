"""The loss curve of a training, as an image file."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path


def draw_loss_curve(metrics: Sequence[dict[str, float]], file: Path) -> None:
    """Draw the training loss and the held-out loss over the epochs, on a logarithmic axis.

    Losses of different stages are not comparable, so no line connects two stages.

    Args:
        metrics: Rows of `edgead.training.loop.Fitted`, at least one.
        file: PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for _, stage in groupby(metrics, key=itemgetter("stage")):
        rows = list(stage)
        first = rows[0] is metrics[0]
        marker = "o" if len(rows) < 3 else None
        for name, label, colour in (
            ("loss", "training images", "C0"),
            ("holdout_loss", "held-out good images", "C1"),
        ):
            epochs, losses = [row["epoch"] for row in rows], [row[name] for row in rows]
            axes.plot(epochs, losses, label=label if first else None, color=colour, marker=marker)
        if not first:
            axes.axvline(rows[0]["epoch"] - 0.5, color="0.6", linestyle="--")
    last = metrics[-1]["epoch"]
    axes.set(xlabel="epoch", ylabel="loss", yscale="log", xlim=(0.5, last + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(file, format="png", dpi=120)
