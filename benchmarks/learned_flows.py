"""Learned flows on pot1-pot4, with the exact KL.

    python -m benchmarks.learned_flows             # everything; about 20 minutes on 2 cores
    python -m benchmarks.learned_flows --seeds 1   # a quick look

Every fit uses the default settings of NFVI; only the seed changes. In pot2-pot4 z0 is
Laplace(0, 10), hence the base, and z1 given z0 is a normal, or two, around a sine of period 4,
hence the waves that the network sees and the order that does not alternate: z0 first.
"""

from __future__ import annotations

import argparse

from benchmarks.environment import describe_environment
from benchmarks.potentials import potential
from models.potentials import pot1, pot2, pot3, pot4

WAVES = "scale-monotone(features=fourier(8),alternate=false)*2"
PLAIN = "scale-monotone(alternate=false)*2"


def main() -> None:
    """Print every number."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10, help="fits of pot1 (10)")
    seeds = parser.parse_args().seeds
    few = min(seeds, 3)
    print(describe_environment(), flush=True)
    potential(pot1, "monotone*3", seeds)
    for target in (pot2, pot3, pot4):
        potential(target, WAVES, few, base="laplace")
    potential(pot4, PLAIN, 1, base="laplace")
    potential(pot1, "realnvp*6", few)


if __name__ == "__main__":
    main()
