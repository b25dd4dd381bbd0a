"""Poolers made of other poolers."""
