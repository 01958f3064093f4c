"""One video (path or URI) enters; what it holds (`probe`), its `frames` with media time, its `audio` and the `mel`
spectrogram of that leave.

FFmpeg is used through PyAV, and only here.
"""
