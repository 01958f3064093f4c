"""Labeled images (a manifest, a folder a person, InsightFace's train.rec) enter; parts of a face store leave."""
