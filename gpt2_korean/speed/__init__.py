"""Faster ways to the same answers, each with a plain twin; without this folder everything would only be slower."""
