"""FlowDensity: a formula fitted to data, as a scikit-learn estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nfvi.inference import NFVI
from nfvi.utils import check_unmasked

try:
    from sklearn.base import BaseEstimator, DensityMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as missing:
    raise ImportError(
        "nfvi.FlowDensity needs scikit-learn 1.6 or newer, the extra `sklearn`: pip install"
        " 'nfvi[sklearn]'"
    ) from missing

__all__ = ["FlowDensity"]


class FlowDensity(DensityMixin, BaseEstimator):  # type: ignore[misc]
    """Density estimation with normalizing flows, for scikit-learn's pipelines and searches.

    It fits a formula by :meth:`nfvi.NFVI.fit_data` in the floating-point type of X, and scores by
    the mean log-likelihood a row, so that ``GridSearchCV`` can choose among formulas.

    Args:
        formula: the flows, such as ``"maf*3"``.
        base: as for :class:`~nfvi.NFVI`.
        epochs: how often each row is seen; default as for :meth:`nfvi.NFVI.fit_data`.
        batch_size: rows a step; default as for :meth:`nfvi.NFVI.fit_data`.
        validation: fraction of the rows that is held out to choose the best state, 0 for none.
        standardize: whether the flows see columns with mean 0 and sd 1.
        patience: looks at the held-out rows without a gain after which the fit stops.
        lr: learning rate at the top of its schedule.
        device: of the guide; default the CPU.
        random_state: an integer for the same fit each time.

    Attributes:
        density_: the fit, a :class:`~nfvi.DensityFit`.
        n_features_in_: columns of X.
        feature_names_in_: their names, where X was a table whose columns have names.

    Example:
        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(size=(100, 2))
        >>> FlowDensity("scale-loc", epochs=20, random_state=0).fit(X).score_samples(X).shape
        (100,)
    """

    def __init__(
        self,
        formula: str = "maf*3",
        *,
        base: str = "normal",
        epochs: int | None = None,
        batch_size: int | None = None,
        validation: float = 0.1,
        standardize: bool = True,
        patience: int | None = None,
        lr: float | None = None,
        device: str | None = None,
        random_state: Any = None,
    ) -> None:
        self.formula, self.base = formula, base
        self.epochs, self.batch_size, self.validation = epochs, batch_size, validation
        self.standardize, self.patience, self.lr = standardize, patience, lr
        self.device, self.random_state = device, random_state

    def fit(self, X: Any, y: None = None, sample_weight: Any = None) -> FlowDensity:
        """Fit the density to rows.

        Args:
            X: (n, d).
            y: not used.
            sample_weight: (n), at least 0.

        Returns:
            This estimator.

        Raises:
            ValueError: X or a parameter cannot be used, see :meth:`nfvi.NFVI.fit_data`.
        """
        check_unmasked("X", X)
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self.density_ = NFVI(self.formula, base=self.base, seed=seed, device=self.device).fit_data(
            torch.from_numpy(np.array(X)),
            validation=self.validation,
            batch_size=self.batch_size,
            epochs=self.epochs,
            weights=sample_weight,
            standardize=self.standardize,
            patience=self.patience,
            lr=self.lr,
            progress=False,
        )
        return self

    def score_samples(self, X: Any) -> np.ndarray:
        """Log-density of each row (n), nats."""
        check_is_fitted(self)
        check_unmasked("X", X)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        scores: np.ndarray = self.density_.score_samples(X)
        return scores

    def score(self, X: Any, y: None = None) -> float:
        """The mean log-density a row, nats; y is not used."""
        return float(np.mean(self.score_samples(X)))

    def sample(self, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """Draws (n_samples, d).

        Args:
            n_samples: how many.
            random_state: an integer for the same draws each time.
        """
        check_is_fitted(self)
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        draws: np.ndarray = self.density_.sample(n_samples, seed=seed).cpu().numpy()
        return draws
