"""Training targets."""
