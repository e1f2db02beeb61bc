"""Four models written in Pyro, NumPyro, PyMC and Stan: one posterior, whichever library says it."""
