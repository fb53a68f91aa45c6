"""What must hold when things go wrong: two drivers, replaced inputs, killed processes, damaged outputs."""
