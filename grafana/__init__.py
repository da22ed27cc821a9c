"""Dashboards as code: `make dashboards` writes dashboards/*.json from them."""
