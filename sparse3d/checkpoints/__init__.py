"""Weights of other frameworks: official parameter names -> ours, one file a system."""

from .convert import convert_names, find_state, load_converted
from .official import SYSTEMS, load_official, load_official_state

__all__ = ["SYSTEMS", "convert_names", "find_state", "load_converted", "load_official", "load_official_state"]
