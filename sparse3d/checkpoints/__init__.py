"""Weights of other frameworks: official parameter names -> ours, one file a system."""

from .convert import convert_names, load_converted, read_state

__all__ = ["convert_names", "load_converted", "read_state"]
