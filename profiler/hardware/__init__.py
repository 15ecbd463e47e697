"""Catalogue of accelerators, every number with its source."""
