"""Sources of energy readings, one file per source, and the arithmetic on them."""
