"""Every picture, as a function that takes and returns Matplotlib's Axes or Figure.

Without ``ax=`` or ``fig=`` a new figure is made that pyplot does not know. End a notebook cell with
it, or with its axes, and it is shown, once; save it by ``figure.savefig`` (for axes,
``ax.figure.savefig``). No style, backend or other setting of Matplotlib is changed. Needs the extra
``nfvi[plots]``.
"""

try:
    import matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError("pictures need Matplotlib: pip install 'nfvi[plots]'") from error

from nfvi.plots.climbs import path
from nfvi.plots.compared import comparison, fitted
from nfvi.plots.data_density import density
from nfvi.plots.densities import guide, target
from nfvi.plots.gradient_traces import gradients
from nfvi.plots.loss_curves import history
from nfvi.plots.marginals import pairs
from nfvi.plots.predictive_checks import predictive
from nfvi.plots.rank_plots import ranks
from nfvi.plots.restart_elbos import restarts
from nfvi.plots.rows import rows
from nfvi.plots.start import starting
from nfvi.plots.verified import verification
from nfvi.plots.weight_tails import weights

__all__ = [
    "comparison",
    "density",
    "fitted",
    "gradients",
    "guide",
    "history",
    "pairs",
    "path",
    "predictive",
    "ranks",
    "restarts",
    "rows",
    "starting",
    "target",
    "verification",
    "weights",
]
