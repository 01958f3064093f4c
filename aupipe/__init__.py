"""aupipe: facial Action Units (AUs) from any archive of video, on Ray.

Bytes become frames with media time (`media`), faces and 112×112 crops (`faces`), frame embeddings and AU logits
(`models`), and tables (`annotation`). Training starts from the crops (`facestore`, `data`, `training`). Only
`pipelines` imports Ray.

Dimension letters used in every docstring: N frames or crops, B batch, S sequence length, E embedding dimension, T = 12
AUs, C expression classes, H and W pixels.
"""

__version__ = "0.1.0"
