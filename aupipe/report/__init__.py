"""Figures of an annotation: they read its tables and its video, and write pictures."""
