"""`segment demo`: a run on the street scenes that the package ships."""
