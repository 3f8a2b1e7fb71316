"""The rows that need a GPU, at the published sizes with random weights."""
