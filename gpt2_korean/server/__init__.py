"""generate.py --serve: a page to write with, and what answers it."""
