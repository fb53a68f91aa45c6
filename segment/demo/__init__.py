"""A small world to try everything in: synthetic street scenes and the data sets made of them."""
