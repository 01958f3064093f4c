"""Networks from crops to AU logits. A system is a frame encoder and a sequence head; training is in `training`.

`build.build(config)` makes a system with random weights, `checkpoint.load(path)` one with trained weights and its card.
"""
