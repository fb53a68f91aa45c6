"""The painter of labelled street scenes, for the training of the demo's model and for the scenes that the demo shows."""
