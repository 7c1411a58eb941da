"""The search service. File map and vocabulary: see README.md, "How it works"."""
