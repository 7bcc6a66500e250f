"""What train.py and generate.py share: one concern a file, no work at import."""
