"""Moonshine: replace a network's costly convolutions by cheap ones and distil the original into the result."""
