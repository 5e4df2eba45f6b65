"""Data sets: from raw tables to an index, and from the index to samples."""
