"""The record: its schema, the store that keeps it on disk, and readers."""
