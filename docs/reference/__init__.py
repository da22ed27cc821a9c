"""Generators of the reference pages: each module prints its page, `make docs` writes them all."""
