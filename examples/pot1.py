"""pot1, two modes on a ring: NUTS from either side, planar*2 with its gradients, planar*8.

The middle part of PyMC3's notebook "Normalizing Flows Overview", with what can be known exactly
beside each number: log Z is 1.877502, and half of the mass lies on each side of z[0] = 0.

    python examples/pot1.py            # a few minutes; figures in out/pot1
    python examples/pot1.py --quick    # a few seconds, to see that it runs
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from common import Example
from matplotlib.figure import Figure

from models.potentials import mass_left, pot1
from nfvi import NFVI, Fit, GradientTracker, MCMCRun, compare, hmc, nuts, plots

SEED = 42
STARTS = torch.tensor([[-2.0, 0.0], [2.0, 0.0]])
WINDOW = ((-4.0, 4.0), (-4.0, 4.0))
NOTEBOOK = {"planar*2": 0.99, "planar*8": 0.10}
"""KL(q ‖ p) that the notebook's fits reach, nats, from its printed losses and the exact log Z."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run everything."""
    example = Example("pot1", __doc__, argv)
    example.heading("The target")
    example.save(plots.target(pot1, window=WINDOW), "target")
    run = chains(example)
    two = planar_2(example)
    eight = planar_8(example, run)
    together(example, run, two, eight)


def chains(example: Example) -> MCMCRun:
    """HMC and NUTS with a chain from each mode."""
    example.heading("HMC and NUTS from (-2, 0) and (2, 0)")
    runs = {}
    for name, sampler in {"HMC": hmc, "NUTS": nuts}.items():
        run = sampler(
            pot1, chains=2, init=STARTS, seed=SEED, progress=False, **example.sampling(1000, 1000)
        )
        left = [f"{mass_left(chain):.1%}" for chain in run.draws]
        print(
            f"{name}: draws left of 0 {mass_left(run.draws.flatten(0, 1)):.1%}, by chain"
            f" {' and '.join(left)} (exact 50 %); R-hat"
            f" {max(x.max().item() for x in run.rhat.values()):.2f};"
            f" {run.divergences.sum().item()} divergences; {run.wall_time:.0f} s"
        )
        runs[name] = run
    example.say(
        """Within a mode both are right. But the modes are joined only by thin parts of the ring,
        and a chain stays on one side for hundreds of draws: how much of its time it spends on
        the left is chance. Starting one chain on each side does not mend that, since a chain
        may cross during its warm-up, and R-hat stays close to 1 where the chains happen to end
        up on the same side."""
    )
    return runs["NUTS"]


def planar_2(example: Example) -> Fit:
    """Two planar flows: too few, and the gradients tell which of their parameters still move."""
    example.heading("planar*2, and the gradients it was trained with")
    start = NFVI("planar*2", jitter=1.0, seed=SEED)
    example.save(plots.starting(start, pot1, seed=SEED), "planar2-start")
    tracker = GradientTracker(every=2 if example.quick else 20)
    fit = start.fit(pot1, callbacks=[tracker], progress=False, **example.fitting)
    print(fit)
    against_notebook(fit)
    example.save(plots.history(fit), "planar2-history")
    example.save(plots.gradients(tracker), "planar2-gradients")
    last = tracker.flow_snr[-min(len(tracker), 25) :, tracker.best].nanmean(0)
    for i, flow in enumerate(tracker.flows):
        print(
            f"signal-to-noise of the gradient at the end, flow {i} ({flow}): {last[i].item():.2f}"
        )
    example.say(
        """The tracker keeps the gradients that the steps used, not fresh ones. A signal-to-noise
        ratio about 1 is a gradient that is mostly noise: what moves the parameters still is a
        drift over thousands of steps. More steps will help little; more layers will help."""
    )
    return fit


def planar_8(example: Example, run: MCMCRun) -> Fit:
    """Eight planar flows, and how they compare with NUTS."""
    example.heading("planar*8")
    start = NFVI("planar*8", seed=SEED)
    example.save(plots.starting(start, pot1, seed=SEED), "planar8-start")
    fit = start.fit(pot1, progress=False, **example.fitting)
    print(fit)
    against_notebook(fit)
    share = mass_left(fit.sample(100_000, seed=SEED))
    resampled = mass_left(fit.importance_resample(20_000, seed=SEED))
    print(f"mass left of 0: {share:.3f}, after importance resampling {resampled:.3f} (exact 0.5)")
    example.say(
        """A wrong share costs little KL: 60 % in place of 50 % on one side is 0.02 nats, so that
        the ELBO hardly prefers a restart that has it right. Importance weights do: where k-hat
        is below 0.7 and both modes are there, resampling sets the shares right."""
    )
    example.save(plots.history(fit), "planar8-history")
    comparison = compare(fit, run, seed=SEED)
    print(f"\n{comparison}")
    example.save(comparison.plot(), "planar8-nuts")
    return fit


def against_notebook(fit: Fit) -> None:
    """The exact KL beside the notebook's."""
    formula = str(fit.formula)
    found = fit.target.log_normalizer - fit.elbo
    print(f"KL(q || p) of {formula}: {found:.3f} nats; PyMC3's notebook: {NOTEBOOK[formula]:.2f}")


def together(example: Example, run: MCMCRun, two: Fit, eight: Fit) -> None:
    """Target, NUTS and both flows in one picture."""
    example.heading("All of them")
    figure = Figure(figsize=(12, 3.5), dpi=100, layout="constrained")
    axes = figure.subplots(1, 4)
    plots.target(pot1, window=WINDOW, ax=axes[0])
    plots.target(pot1, window=WINDOW, lines=True, ax=axes[1])
    draws = run.draws.flatten(0, 1)
    axes[1].scatter(*draws.T, s=2, alpha=0.3, lw=0, color=plots.style.COLORS["right"])
    axes[1].set_title(f"NUTS, {len(draws)} draws")
    for ax, fit in zip(axes[2:], (two, eight), strict=True):
        plots.guide(fit, window=WINDOW, ax=ax)
        plots.target(pot1, window=WINDOW, lines=True, ax=ax)
    for ax in axes:
        ax.label_outer()
        for words in list(ax.texts):
            words.remove()
    example.save(figure, "together")
    example.say(
        """Shades: regions of 25 to 99 % of the mass; lines: those of the target with 50, 90 and 99
        %. Two planar flows split the plane but cannot bend both halves, and leave a bridge;
        eight follow the arcs. NUTS draws the arcs right, and leaves their weights to chance."""
    )


if __name__ == "__main__":
    main()
