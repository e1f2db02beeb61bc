"""Variational inference with normalizing flows from a formula, on PyTorch and Pyro."""
