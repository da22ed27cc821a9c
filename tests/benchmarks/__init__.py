"""Benchmarks against peers: `make bench` runs them all, `make bench ONLY=scrape` one."""
