"""One adapter for each search engine."""
