"""Annotation: videos to per-frame AU tables, events and one record per video.

Inputs and planning: `inputs` finds videos, `segments` splits them, and `work_plan` lists the work that is due according
to the `ledger` of committed results and the `cache_keys` of this job.
Perception: `extract` decodes, detects and aligns the faces of a segment, `encode` embeds their crops with the models of
`model_set`, and `audio_features` computes log-mel spectrograms. `features` stores both until they are finalized.
Output: `tracks` links faces, `postprocess` predicts and applies the decision, `events` finds events, `schema` defines
the tables, and `export` converts them to other formats.
Runs: `stages` and `model_stages` hold the stages, `runner` runs them in one process and `pipelines.annotate` on Ray.
`annotate_job` is a command line, `annotator` carries it out, and `phases` gives the order of the stages.
`faults` and `retry` contain the faults of one input, and `summary` reports the result.
"""
