"""evaluate: maps + labels -> numbers and tables."""
