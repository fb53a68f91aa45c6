"""The painter of labelled street scenes: the training data of the demo's model, and the scenes that `segment demo` uses."""
