"""Reading of videos by path or URI: properties (`probe`), `frames` with media time, `audio` and its `mel` spectrogram.

FFmpeg is used through PyAV, and only in this package.
"""
