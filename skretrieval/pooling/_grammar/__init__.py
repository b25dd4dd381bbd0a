"""The terms of the pooling grammar, and the spec that joins them."""
