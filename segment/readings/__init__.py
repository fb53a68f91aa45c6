"""Readings of a card other than what it says, tried on labelled images and ranked: `segment check`."""
