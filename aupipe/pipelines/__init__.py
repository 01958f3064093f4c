"""The only place that imports Ray: each module takes a plain specification, runs plain functions on the cluster, and
returns counts."""
