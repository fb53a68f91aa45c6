"""What a job reads: discovery and planning of inputs, one subpackage per format, and the samples of a part."""
