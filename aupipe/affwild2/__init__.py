"""The Aff-Wild2 data set as downloaded (ABAW2, ABAW3–5, ABAW6+, multi-task): conversion of annotation files, crops
and videos to parts of a face store, and challenge submissions."""
