"""One video (path or URI) enters; what it holds (`probe`), its frames in presentation order with media time (`frames`) and its audio (`audio`) leave."""
