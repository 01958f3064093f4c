"""One video (path or URI) enters; what it holds (`probe`), its `frames` with media time and its `audio` leave.

FFmpeg is used through PyAV, and only here.
"""
