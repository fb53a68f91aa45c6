"""What people would use instead, each written as its own documentation tells them to. See jobs/BENCHMARKS.md.

Every peer is a program, `python jobs/peers/NAME.py SPEC.json`: it reads the loose images of the specification, writes
`masks.parquet` (path, PNG of class indices at the source's size) under its output, and prints one line of JSON:
images, seconds from the first call of the model's step to the end of the last one (start-up and the final write are
left out, which flatters) and seconds until then. No peer scores labels, which flatters too.
"""
