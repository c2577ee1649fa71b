"""Evals: figures on held-out data, each with its interval, its count and what it stands beside."""
