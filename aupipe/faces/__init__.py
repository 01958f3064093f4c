"""Upright RGB frames enter; detections, 112×112 aligned crops and, for a whole video, face ids leave."""
