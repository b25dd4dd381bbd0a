"""How feature maps stream through a pooler: base class, batches, cached descriptors, threads."""
