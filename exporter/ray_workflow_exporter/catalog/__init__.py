"""All runs that are known, what of them is exposed, and what is kept on disk."""
