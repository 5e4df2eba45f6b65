"""Weights of other frameworks: official parameter names -> ours, one file a system."""

from .convert import convert_names, find_state, load_converted, read_state

__all__ = ["convert_names", "find_state", "load_converted", "read_state"]
