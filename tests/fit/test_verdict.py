"""One word for a fit: every limit from both sides, for made-up numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from nfvi.fit.diagnostics import Diagnostics
from nfvi.fit.verdict import GOOD, NOT_TRUSTED, USABLE, Findings, Verdict, judge
from nfvi.search import MissedMass

FINE = Diagnostics(
    elbo=-1.0, elbo_se=0.001, khat=0.3, ess=9_800.0, draws=10_000,
    log_evidence=-0.99, log_evidence_se=0.001, widest=3.0,
)  # fmt: skip
CLEAN = MissedMass((), 0.0, 0.0, -0.99, -0.99, 1_000, 64, 10.0, 5, 500)


def judged(**changes: Any) -> Verdict:
    """The verdict on a good fit with some of what is known of it changed."""
    numbers = {k: changes.pop(k) for k in tuple(changes) if hasattr(FINE, k)}
    if "share" in changes:
        changes["missed"] = replace(CLEAN, share=changes.pop("share"))
    return judge(Findings(replace(FINE, **numbers), **{"missed": CLEAN, **changes}))


@pytest.mark.parametrize(
    ("within", "over", "word", "reason"),
    [
        ({"khat": 0.69}, {"khat": 0.7}, NOT_TRUSTED, "k-hat is 0.70, and weighted draws need 0.7"),
        ({"ess": 100.0}, {"ess": 99.0}, NOT_TRUSTED, "10,000 draws are worth 99"),
        ({"widest": 1e15}, {"widest": 1.1e15}, NOT_TRUSTED, "the target is improper"),
        ({"share": 0.03}, {"share": 0.031}, NOT_TRUSTED, "found mass that it misses: 3% of all"),
        (
            # Below by 0.03 and three of its errors of 0.001.
            {"log_normalizer": -0.99 + 0.0329},
            {"log_normalizer": -0.99 + 0.0331},
            NOT_TRUSTED,
            "The log evidence is 0.03 nats below log Z",
        ),
        ({"log_evidence": -0.981}, {"log_evidence": -0.979}, USABLE, "KL(q ‖ p) is 0.021 nats"),
        ({"verified": True}, {"verified": False}, USABLE, "verify() proves it wrong"),
        ({"not_finite": 0}, {"not_finite": 1}, USABLE, "1 of 10,000 draws have no finite density"),
        ({"at_edge": 0.0}, {"at_edge": 1e-4}, USABLE, "0.01% of the draws sit on the edge"),
    ],
    ids=str,
)
def test_every_limit_from_both_sides(within, over, word, reason):
    if "log_normalizer" not in within:
        assert judged(**within).word == GOOD
    else:  # as far below log Z as this is a KL of over 0.02 nats too
        assert judged(**within).word == USABLE
    found = judged(**over)
    assert found.word == word
    assert reason in str(found)
    assert len(found.reasons) == (1 if word == NOT_TRUSTED else 2)


@pytest.mark.parametrize(
    ("some", "many", "reason"),
    [
        ({"not_finite": 100}, {"not_finite": 101}, "the mass there is not counted"),
        ({"at_edge": 0.01}, {"at_edge": 0.02}, "2% of the draws sit on the edge"),
    ],
)
def test_one_draw_in_a_hundred_that_cannot_be_used_is_the_most(some, many, reason):
    assert judged(**some).word == USABLE
    found = judged(**many)
    assert found.word == NOT_TRUSTED and reason in str(found)


def test_a_kl_of_0_31_is_not_good():
    """A mean may be off by √(2 · 0.31) = 0.79 sd."""
    found = judged(elbo=-1.3)
    assert found.word == USABLE and found.reasons[0].startswith("KL(q ‖ p) is 0.31 nats")
    assert "off by 0.8 sd" in str(found)
    assert found.reasons[-1] == "Use weighted draws: fit.importance_resample(n)."


def test_278_of_10_000_draws_without_a_density_are_not_to_be_trusted():
    found = judged(not_finite=278)
    assert found.word == NOT_TRUSTED and "278 of 10,000 draws have no finite density" in str(found)


def test_log_z_that_is_known_gives_a_lost_mode_away():
    """Log evidence and ELBO agree, and both are short of log Z by log 2."""
    assert judged().word == GOOD
    found = judged(log_normalizer=-0.99 + math.log(2))
    assert found.word == NOT_TRUSTED
    assert "0.69 nats below log Z, which is known here: mass is missed" in str(found)


def test_a_shortfall_within_three_errors_is_noise():
    noisy = {"log_evidence_se": 0.1, "elbo_se": 0.1}
    assert judged(log_normalizer=-0.99 + 0.3, **noisy).word == USABLE
    assert judged(log_normalizer=-0.99 + 0.34, **noisy).word == NOT_TRUSTED


def test_what_is_good_says_how_far_off_a_mean_is_at_most():
    """√(2 · 0.01) = 0.14."""
    assert str(judged()) == (
        "Verdict: good. KL(q ‖ p) is 0.0100 nats: a mean is off by about 0.14 sd at most."
    )


def test_the_exact_kl_is_taken_where_it_is_known():
    assert judged(log_normalizer=-0.985).word == GOOD
    assert judged(log_normalizer=-0.979).word == USABLE
    assert Findings(FINE, log_normalizer=-0.979).kl == pytest.approx(0.021)
    assert Findings(replace(FINE, elbo=-0.98)).kl == 0.0


def test_more_modes_than_a_search_looks_at():
    found = judged(missed=replace(CLEAN, crowded=True, share=0.01))
    assert found.word == NOT_TRUSTED
    assert "The search found mass that it misses: at 0 modes and more." in str(found)


def test_without_a_search_it_is_judged_by_its_draws():
    assert judged(missed=None).word == GOOD


def test_a_search_that_could_not_be_made_finds_nothing():
    assert judged(share=math.nan).word == GOOD
    assert "nan" not in str(judged(share=math.nan, khat=math.inf))


def test_draws_where_the_target_is_0_cannot_be_used_as_they_are():
    found = judged(elbo=-math.inf, elbo_se=math.nan)
    assert found.word == USABLE and "Some draws fall where the target is 0." in found.reasons


def test_no_draw_has_any_weight():
    nothing = {"ess": 0.0, "log_evidence": -math.inf, "log_evidence_se": math.nan}
    found = judged(elbo=math.nan, khat=math.inf, not_finite=10_000, share=math.nan, **nothing)
    assert found.word == NOT_TRUSTED and "A few draws carry all the weight" in found.reasons[0]
    assert "10,000 of 10,000" in str(found) and "nan" not in str(found)


def test_several_reasons_are_all_told():
    found = judged(khat=0.9, not_finite=500, share=0.5, at_edge=0.1)
    assert found.word == NOT_TRUSTED and len(found.reasons) == 4
    found = judged(elbo=-1.3, verified=False)
    assert found.word == USABLE and len(found.reasons) == 3


def test_an_improper_target_is_told_alone():
    """Its other numbers mean nothing."""
    assert len(judged(widest=1e17, khat=2.0, not_finite=500, share=0.5).reasons) == 1
