"""What pytest leaves alone in this folder: it tests the examples of the Markdown pages."""

collect_ignore = ["conf.py", "_ext", "_build", "auto_examples", "api", "pictures.py", "card_pictures"]
