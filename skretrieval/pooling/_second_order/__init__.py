"""Second-order pooling over candidate regions."""
