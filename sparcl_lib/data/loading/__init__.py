"""From files to the batches of a step."""
