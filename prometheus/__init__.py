"""Rules for Prometheus: the tables from which `make rules` writes the YAML beside them."""
