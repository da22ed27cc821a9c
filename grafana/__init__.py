"""Boards as code: `make boards` writes dashboards/*.json from them."""
