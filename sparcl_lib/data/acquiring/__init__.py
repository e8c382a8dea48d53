"""From a published archive, or a folder of one's own, to a checked tree of data."""
