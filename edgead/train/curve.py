"""The loss curve of a training as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def draw_loss_curve(metrics: Sequence[dict[str, float]], file: Path) -> None:
    """Draw training and held-out loss over the epochs, logarithmic, as a PNG; metrics as `fit` gives them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    epochs = [row["epoch"] for row in metrics]
    marker = "o" if len(metrics) < 3 else None
    axes.plot(epochs, [row["loss"] for row in metrics], label="training pictures", marker=marker)
    axes.plot(epochs, [row["holdout_loss"] for row in metrics], label="held-out good pictures", marker=marker)
    axes.set(xlabel="epoch", ylabel="loss", yscale="log")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(file, format="png", dpi=120)
