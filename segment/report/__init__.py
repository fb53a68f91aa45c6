"""Reports: what a run's statistics say, as data, on the console and in Markdown."""
