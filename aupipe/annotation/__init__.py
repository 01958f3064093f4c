"""Videos enter; per-frame AU tables, events and one record a video leave. `pipelines.annotate` runs these functions.

`inputs` finds videos, `plan` cuts them into segments and `worklist` says which are due; `observe` decodes, detects and
aligns a segment, `encode` embeds its crops by the models of `ensemble`, `sound` leaves what a video sounds like;
`finalize` links faces, runs the heads and decides. `observed` is what lies between the two phases, `ledger` remembers
what is committed under which `keys`, `attempts` which inputs killed their worker. `schema` fixes the tables, `export`
gives them other forms.
"""
