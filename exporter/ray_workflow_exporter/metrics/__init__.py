"""From the catalog to bytes on the wire."""
