"""objects: ScoreMap -> anomalous objects."""
