"""Buckets of versioned objects, as S3's clients know them."""
