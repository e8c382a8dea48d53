"""The parts of the study, each a module with `measure(job)`; `items` is what they share."""
