"""`segment quantize`: weights in INT8, a card beside them, and what they cost."""
