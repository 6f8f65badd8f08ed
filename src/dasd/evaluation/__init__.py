"""Sampling, grading and figures with intervals. Never imports `dasd.training`."""
