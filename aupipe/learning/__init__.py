"""Learning without Ray: a face store, a system and a recipe enter; weights, thresholds and scores leave.

All order and all randomness is a function of (seed, epoch, step, rank), so a run that goes on from a checkpoint
repeats the bits of one that was never stopped.
"""
