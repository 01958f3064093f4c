"""Conversion of labeled images (manifest, one folder per person, InsightFace's train.rec) to parts of a face store."""
