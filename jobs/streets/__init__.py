"""The painter of labelled street scenes: training data of the demo's model, and the scenes that the demo shows."""
