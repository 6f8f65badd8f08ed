"""Datasets in, problems out."""
