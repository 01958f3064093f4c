"""Videos enter; per-frame AU tables, events and one record a video leave. Plain functions; `pipelines.annotate` runs them.

`plan` turns inputs into segments; `observe` decodes, detects, aligns and encodes a segment; `finalise` links faces, runs
the sequence head and decides; `ledger` remembers what is committed; `schema` fixes the tables.
"""
