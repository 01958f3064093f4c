"""Networks: crops enter, AU logits leave. A system is a frame encoder and a sequence head; nothing here trains.

`build.build(config)` makes a system with random weights, `checkpoint.load(path)` one with trained weights and its card.
"""
