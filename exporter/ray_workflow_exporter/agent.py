"""The former name of `inside_ray`, which shims that are already installed in a Ray import."""

from .inside_ray import load

__all__ = ["load"]
