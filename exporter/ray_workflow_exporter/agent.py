"""The former name of `inside_ray`: shims that were installed earlier import it."""

from .inside_ray import load

__all__ = ["load"]
