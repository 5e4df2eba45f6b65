"""Looking back: curves of trainings, errors of detectors, and what a detector costs."""
