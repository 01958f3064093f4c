"""One video (path or URI) enters; what it holds (`probe`), its `frames` with media time, its `audio` and of that the `mel`
spectrogram leave.

FFmpeg is used through PyAV, and only here.
"""
