"""What holds for this process as a whole: the modules it may load, its allocator, what C libraries print."""
