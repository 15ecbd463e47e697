"""Catalogue of architectures, and the accounting: parameters, bytes and FLOPs from the fields alone."""
