"""What ``print(fit)`` says, for made-up numbers."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from nfvi.fit.diagnostics import Diagnostics
from nfvi.fit.path import ClimbPath, Rung
from nfvi.fit.restarts import Restart
from nfvi.fit.text import FitReport, describe
from nfvi.fit.verdict import Findings
from nfvi.guides import make_base
from nfvi.search import MissedMass, Place

GOOD = Diagnostics(
    elbo=1.8, elbo_se=0.003, khat=0.4, ess=9_000.0, draws=10_000,
    log_evidence=1.85, log_evidence_se=0.002,
)  # fmt: skip
CLEAN = MissedMass((), 0.0, 0.0, 1.85, 1.85, 131_072, 512, 10.0, 40, 20_000)
FOUND = Findings(GOOD, missed=CLEAN)
ONE = Restart(0, 1.8, 0.01, tempered=True, skipped=0, dropped=False, best=True)
MADE = FitReport(
    formula="scale-loc",
    base=make_base("normal"),
    dim=2,
    target="log_p",
    seed=4,
    init="zeros",
    steps=400,
    n_mc=(64, 64),
    gradient_evaluations=51_200,
    batched_evaluations=400,
    wall_time=12.345,
    stopped="steps",
    restarts=(ONE,),
    rising=False,
    path=None,
    findings=FOUND,
)
RUNG = Rung("scale-loc", 1.8, 0.003, 0.4, 0.9, 1.85, 0, 1, 1, 0.1)


def text(**changes: Any) -> str:
    """The text with some numbers of the report or its findings changed, in one line."""
    numbers = {k: changes.pop(k) for k in tuple(changes) if hasattr(GOOD, k)}
    known = {k: changes.pop(k) for k in tuple(changes) if hasattr(FOUND, k)}
    findings = replace(FOUND, diagnostics=replace(GOOD, **numbers), **known)
    found = describe(replace(MADE, **{"findings": findings, **changes}))
    assert max(map(len, found.splitlines())) <= 88, found
    return re.sub(r"\s+", " ", found)


def restarts(*elbos: float) -> str:
    """The text of a fit whose restarts ended with these ELBOs; NaN for one that was dropped."""
    best = max(e for e in elbos if not math.isnan(e))
    made = (
        replace(ONE, index=i, elbo=e, best=e == best, dropped=math.isnan(e))
        for i, e in enumerate(elbos)
    )
    return text(restarts=tuple(made))


class TestNumbers:
    def test_caveat_whatever_the_numbers(self) -> None:
        """What was searched for missed mass, or that nothing was, and one verdict."""
        for khat in (-math.inf, 0.1, 0.6, 0.9, 2.0, math.inf):
            for ess in (1.0, 500.0, 3_000.0, 9_999.0):
                found, blind = text(khat=khat, ess=ess), text(khat=khat, ess=ess, missed=None)
                assert "narrower or farther parts cannot be excluded" in found
                assert "none of these numbers can see a mode that it misses" in blind
                for words in (found, blind):
                    assert "nan" not in words and " inf" not in words
                    assert words.count("Verdict: ") == 1

    def test_khat_over_the_limit_asks_for_more(self) -> None:
        found = text(khat=0.9, ess=100.0)
        assert "not reliable" in found and "Verdict: not to be trusted. k-hat is 0.90" in found
        assert 'Try NFVI("auto"), more layers or a richer formula' in found
        assert "studentt(df=5)" in found
        assert "importance_resample" not in found

    @pytest.mark.parametrize("ess", [100.0, 3_000.0])
    def test_more_steps_only_while_the_elbo_rises(self, ess: float) -> None:
        words = "The ELBO still rises: more steps, fit.refine(200), will help too."
        assert words in text(rising=True, ess=ess)
        assert "still rises" not in text(rising=False, ess=ess)

    def test_khat_high_although_most_draws_agree_is_about_tails(self) -> None:
        found = text(khat=0.9, ess=9_500.0)
        assert "tails of the guide are lighter" in found
        assert "Verdict: not to be trusted" in found and "may be good all the same" in found

    def test_good(self) -> None:
        found = text(elbo=1.84)
        assert "Verdict: good. KL(q ‖ p) is 0.0100 nats: a mean is off by about 0.14 sd" in found
        assert "90.0%" in found and "10,000 draws are worth 9,000" in found
        assert "Try " not in found and "would bring it closer" not in found

    def test_rough(self) -> None:
        """KL(q ‖ p) is 0.05 nats, and √(2 · 0.05) = 0.32."""
        found = text(ess=3_000.0)
        assert "Verdict: usable. KL(q ‖ p) is 0.050 nats: a mean may be off by 0.3 sd." in found
        assert "Use weighted draws: fit.importance_resample(n)." in found
        assert 'NFVI("auto"), more layers or a richer formula would bring it closer.' in found
        few = text(ess=99.0)
        assert "Verdict: not to be trusted. 10,000 draws are worth 99 after weighting" in few
        assert "importance_resample" not in few

    def test_missed_mass(self) -> None:
        place = Place(torch.tensor([-6.0, 0.0]), 0.0, 0.5, 17.5)
        missed = replace(CLEAN, places=(place,), share=0.5, log_evidence=2.543)
        found = text(missed=missed, elbo=1.84)
        assert "not to be trusted. The search found mass that it misses: 50% of all." in found
        assert "The guide misses about 50% of the mass" in found
        assert "the log evidence is 2.543 and not 1.850" in found
        assert 'Try NFVI("auto")' in found

    @pytest.mark.parametrize(
        ("reason", "words"),
        [
            ("the budget of 3 seconds was spent", "Try a larger budget."),
            ("auto", "Try another seed, or nuts(target) from several starting points beside it."),
        ],
    )
    def test_missed_mass_after_a_climb(self, reason: str, words: str) -> None:
        path = ClimbPath((RUNG,), 0, reason, 1, 1)
        assert words in text(missed=replace(CLEAN, share=0.5), path=path, stopped=reason)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({}, "fit.refine(1_000) goes on from here, and may bring it closer."),
            ({"rising": True}, "The ELBO still rises: more steps, fit.refine(200), will help too."),
            ({"shell": True}, ""),
            ({"stopped": "the budget of 3 s was spent"}, "A larger budget would bring it closer."),
        ],
    )
    def test_after_a_climb_nobody_is_sent_to_the_formulas_that_it_tried(self, changes, words):
        path = ClimbPath((RUNG,), 0, "auto", 1, 1)
        found = text(ess=3_000.0, path=path, **{"stopped": "auto", **changes})
        assert "Verdict: usable" in found and words in found
        assert "richer formula" not in found
        assert words or "closer" not in found

    def test_an_improper_target_gets_no_advice_on_formulas(self) -> None:
        found = text(widest=1e17, khat=2.0)
        assert "the target is improper" in found and "Look for a parameter" in found
        assert "heavier tails" not in found and "more layers" not in found

    def test_the_target_itself(self) -> None:
        found = text(khat=-math.inf, ess=10_000.0, elbo_se=0.0, log_evidence_se=0.0)
        assert "k-hat none the largest weights are equal" in found
        assert "100.0%" in found

    def test_digits_follow_the_error(self) -> None:
        assert "1.8000 ± 0.0030" in text()
        assert "1.80 ± 0.12" in text(elbo_se=0.1234)
        assert "-123457 ± 12" in text(elbo=-123456.789, elbo_se=12.3)
        assert "ELBO 1.8000 log Z" in text(elbo_se=1e-12)
        assert "KL(q ‖ p) 0.0000 log Z" in text(log_normalizer=1.8 - 1e-6, elbo_se=1e-7)

    def test_kl_known(self) -> None:
        found = text(log_normalizer=1.8379)
        assert "KL(q ‖ p) 0.0379 ± 0.0030 log Z − ELBO, with the exact log Z of 1.8379" in found

    def test_kl_estimated_only_where_the_weights_are_good(self) -> None:
        assert "KL(q ‖ p) 0.0500 ± 0.0030 log evidence − ELBO" in text()
        assert "KL(q ‖ p) 0" not in text(khat=0.9)

    def test_verified(self) -> None:
        assert "verify() proves it wrong somewhere" in text(verified=False, elbo=1.84)
        assert "verify()" not in text(verified=True, elbo=1.84)

    def test_no_mass(self) -> None:
        found = text(elbo=-math.inf, elbo_se=math.nan)
        assert "some draws fall where the target is 0" in found

    def test_not_finite(self) -> None:
        assert "1,234 of 10,000 draws had no finite density" in text(not_finite=1_234)
        assert "no finite density" not in text()

    def test_numbers_of_any_size_stay_narrow(self) -> None:
        text(
            elbo=-1234567.891, elbo_se=123.4, log_evidence=-1234500.0, log_evidence_se=1e4,
            khat=3.2, ess=1.0,
        )  # fmt: skip

    def test_steps_and_draws(self) -> None:
        assert "400 steps of 64 draws, 51,200 gradients of the target" in text()
        assert "400 steps of 64 to 1,024 draws, 51,200" in text(n_mc=(64, 1_024))
        assert "init laplace, 400 steps" in text(init="laplace")
        assert "no optimiser steps, 51,200" in text(steps=0, n_mc=(64, 0))

    def test_why_it_ended(self) -> None:
        assert "12.3 s (all steps done)" in text()
        assert "(interrupted; refine() continues)" in text(stopped="interrupted")
        assert "(a callback's own reason)" in text(stopped="a callback's own reason")

    def test_a_long_reason_of_a_climb_is_wrapped(self) -> None:
        reason = "monotone*2, base studentt(df=20) is as good as can be told: k-hat 0.46, and"
        path = ClimbPath((RUNG,), 0, f"{reason} 0.0018 nats below", 1, 1)
        said = f"Kept: {RUNG}, rung 1 of 1. Ended: {reason} 0.0018 nats below."
        assert said in text(path=path)

    def test_without_diagnostics(self) -> None:
        found = text(findings=None)
        assert found.endswith("no diagnostics: load it with target= to compute them")
        assert "k-hat" not in found and "400 steps" in found


class TestRestarts:
    def test_restarts_that_agree_need_no_word(self) -> None:
        found = restarts(1.80, 1.85, 1.70)
        assert "as when a mode is lost" not in found and "1.850 (tempered, kept)" in found

    def test_one_that_came_alone_asks_to_temper_for_longer(self) -> None:
        found = restarts(1.1, 1.85, 1.15)
        assert "Only the kept one of 3 restarts came so far, the next ended 0.70 nats" in found
        assert "anneal=0.8" in found and "more restarts" in found

    def test_some_that_agree_are_counted(self) -> None:
        found = restarts(1.1, 1.85, 1.80)
        assert "2 of 3 restarts agree to 0.3 nats" in found and "anneal=" not in found

    def test_dropped_ones_are_named_and_not_compared(self) -> None:
        found = restarts(math.nan, 1.85, 1.80)
        assert "- (tempered, dropped)" in found and "as when a mode is lost" not in found

    def test_many_restarts_and_a_long_formula_stay_narrow(self) -> None:
        assert "1.850" in restarts(*[1.85 - 0.001 * i for i in range(32)])


@pytest.mark.parametrize(
    ("base", "climbed", "words"),
    [
        ("normal", False, 'heavier tails (base="studentt(df=5)" or "laplace")'),
        ("laplace", False, "another base (normal, laplace, studentt)"),
        ("normal", True, 'heavier tails, as in NFVI(str(fit.formula), base="studentt(df=5)")'),
        ("laplace", True, 'another seed, or heavier tails, as in NFVI(str(fit.formula), base="stu'),
        ("studentt(df=20)", True, 'base="studentt(df=5)")'),
        ("studentt(df=5)", True, 'base="studentt(df=3)")'),
    ],
)
def test_the_base_that_is_advised_is_not_the_one_that_is_there(base, climbed, words):
    """After "auto", which takes no base, as a call with the formula that it found."""
    path = ClimbPath((RUNG,), 0, "that was all", 1, 1) if climbed else None
    found = text(base=make_base(base), path=path, khat=0.9, ess=9_500.0)
    assert words in found and f'"{base}"' not in found


class TestShell:
    """Advice for a shell names options, and nothing of Python."""

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"khat": 0.9, "ess": 100.0}, "Try the formula auto, more layers"),
            ({"khat": 0.9, "ess": 9_500.0}, '(--base "studentt(df=5)" or --base laplace)'),
            ({"elbo": 1.5}, "Use weighted draws: --weighted --out DIR."),
            ({"rising": True}, "more steps, --steps 600, will help too"),
            ({"missed": replace(CLEAN, share=0.4)}, "Try the formula auto, which takes"),
            ({"stopped": "interrupted"}, "(interrupted)"),
            ({"missed": None}, "a mode that it misses."),
            ({"findings": None}, "no diagnostics"),
            (
                {"restarts": (ONE, replace(ONE, index=1, elbo=0.5, best=False))},
                "temper for longer (--anneal 0.8) or use more --restarts",
            ),
        ],
    )
    def test_options(self, changes: dict[str, Any], said: str) -> None:
        found = text(shell=True, **changes)
        assert said in found
        assert not re.search(r"NFVI\(|fit\.|base=|anneal=|refine", found)

    @pytest.mark.parametrize(
        ("stopped", "said"),
        [
            ("auto", '--base "studentt(df=5)"'),
            ("the budget of 3 s is spent", "a larger --budget"),
        ],
    )
    def test_after_a_climb(self, stopped: str, said: str) -> None:
        path = ClimbPath((RUNG,), 0, "all rungs tried", 1, 1)
        assert said in text(shell=True, path=path, stopped=stopped, khat=0.9, ess=100.0)
