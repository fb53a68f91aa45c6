"""Post-training quantisation to INT8: `segment quantize` makes the weights, a card beside them, and measures the price."""
