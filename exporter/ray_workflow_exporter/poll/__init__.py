"""One poll: read both sources, merge what they say, put it into the catalog."""
