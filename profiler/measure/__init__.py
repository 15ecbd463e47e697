"""Measuring: plan, trials, steady state, statistics, interference. Emits events, prints nothing."""
