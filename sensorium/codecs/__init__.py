"""Codecs: the raw world to arrays and tokens, and back."""
