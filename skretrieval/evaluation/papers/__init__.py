"""The papers' tables as data, and their reproduction."""
