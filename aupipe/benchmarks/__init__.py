"""Own measurements, one a file: what `bench.py NAME` takes goes in, a JSON-ready dict of figures comes out."""
