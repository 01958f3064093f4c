"""The Aff-Wild2 data set as it is downloaded (ABAW2, ABAW3–5, ABAW6+): annotation files, crops and videos enter; parts
of a face store and challenge submissions leave."""
