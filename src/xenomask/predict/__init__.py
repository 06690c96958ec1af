"""predict: photos, data sets and videos -> predictions on disk."""
