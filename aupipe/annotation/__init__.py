"""Videos enter; per-frame AU tables, events and one record a video leave. `pipelines.annotate` runs these functions.

`plan` turns inputs into segments and `worklist` says which are due; `observe` decodes, detects and aligns a segment;
`finalise` links faces, runs the sequence head and decides; `ledger` remembers what is committed under which `keys`.
`schema` fixes the tables.
"""
