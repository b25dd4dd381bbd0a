"""A folder of photographs as an index that is kept up to date and searched."""
