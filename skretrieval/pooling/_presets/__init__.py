"""One module for each published pooler."""
