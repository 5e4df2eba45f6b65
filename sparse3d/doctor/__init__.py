"""Is a config fit to train? Checks of environment, config, data and model, each with what to do where it fails."""

from .diagnosis import Finding, diagnose

__all__ = ["Finding", "diagnose"]
