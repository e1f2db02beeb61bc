"""Which features belong into a regression: four models compared by their evidence.

The regression is conjugate, so that the evidence of each model is known in closed form, and the
estimates from the fits, their Bayes factors and their standard errors can be checked against it.

    python examples/model_evidence.py            # some minutes; a figure in out/model_evidence
    python examples/model_evidence.py --quick    # a few seconds, to see that it runs
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common import Example
from matplotlib.figure import Figure
from torch import Tensor

from models.linear_regression import diabetes, linear_regression, linear_regression_posterior
from nfvi import NFVI, EvidenceComparison, Fit, PyroTarget, compare_evidence, plots

SEED = 42
FORMULA = "tril"
# The posterior is a Student-t of many degrees of freedom: tails a little heavier than normal.
BASE = "studentt(df=30)"
# One normal mode, and a formula that can follow it: restarts and tempering have nothing to find.
FITTING = {"steps": 2000, "restarts": 1, "anneal": False, "n_mc": 64}
FEATURES = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
MODELS = {
    "bmi": ("bmi",),
    "bmi, s5": ("bmi", "s5"),
    "bmi, s5, bp, sex, s3": ("bmi", "s5", "bp", "sex", "s3"),
    "all ten": FEATURES,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run everything."""
    example = Example("model_evidence", __doc__, argv)
    exact = {name: linear_regression_posterior(*data(name)).log_evidence for name in MODELS}
    fits = {name: fitted(example, name) for name in MODELS}
    found = compared(example, fits)
    held_against(example, found, exact)
    picture(example, found, exact)
    priors(example, fits)


def data(name: str) -> tuple[Tensor, Tensor]:
    """The features of a model, and the response."""
    x, y = diabetes()
    return x[:, [FEATURES.index(feature) for feature in MODELS[name]]], y


def fitted(example: Example, name: str) -> Fit:
    """The fit of one model."""
    example.heading(f"Progression of diabetes on {name}")
    target = PyroTarget(linear_regression, *data(name))
    fit = NFVI(FORMULA, base=BASE, seed=SEED).fit(
        target, progress=False, **FITTING | example.fitting
    )
    print(fit)
    return fit


def compared(example: Example, fits: Mapping[str, Fit]) -> EvidenceComparison:
    """The table of evidences."""
    example.heading("compare_evidence(fits)")
    found = compare_evidence(fits)
    print(found)
    return found


def held_against(example: Example, found: EvidenceComparison, exact: Mapping[str, float]) -> None:
    """Estimates against closed forms."""
    example.heading("Against the closed form")
    best = max(exact, key=lambda name: exact[name])
    print(f"{'':<22} {'exact':>9}  estimate less exact  log Bayes factor against {best!r}")
    for name, value in exact.items():
        row = found[name]
        factor, error = found.log_bayes_factor(name, best)
        print(
            f"{name:<22} {value:9.3f}  {row.log_evidence - value:+.4f} ± {row.log_evidence_se:.4f}"
            f"       {factor:+.4f} ± {error:.4f}, exact {value - exact[best]:+.4f}"
        )
    example.say(
        """All ten features fit the data best, as more features always do. The evidence asks how
        well a model predicted the data before it saw them, and so takes what a feature costs into
        account: the ones that add little make a model worse."""
    )


def picture(example: Example, found: EvidenceComparison, exact: Mapping[str, float]) -> None:
    """How far the estimates are from the closed form."""
    figure = Figure(figsize=(7, 3.2), dpi=100, layout="constrained")
    ax = figure.subplots()
    for place, name in enumerate(exact):
        row = found[name]
        ax.errorbar(
            row.log_evidence - exact[name], place, xerr=2 * row.log_evidence_se,
            fmt="o", capsize=4, color=plots.style.COLORS["left"],
        )  # fmt: skip
    ax.axvline(0, color=plots.style.COLORS["exact"], lw=1)
    ax.set_yticks(range(len(exact)), [f"{name}\n{value:.2f}" for name, value in exact.items()])
    ax.set_xlabel("log evidence, estimate less closed form, nats, ± 2 standard errors")
    ax.set_ylim(-0.5, len(exact) - 0.5)
    ax.spines[["top", "right"]].set_visible(False)
    example.save(figure, "estimates")


def priors(example: Example, fits: Mapping[str, Fit]) -> None:
    """The same with a prior that holds larger models to be less likely."""
    example.heading("A prior over the models")
    prior = {name: 2.0 ** -len(MODELS[name]) for name in fits}
    found = compare_evidence(fits, prior=prior)
    for row in found.rows:
        print(f"{row.name:<22} prior {row.prior:.4f}, posterior {row.probability:.4f}")


if __name__ == "__main__":
    main()
