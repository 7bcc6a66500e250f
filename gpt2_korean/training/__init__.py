"""The run around transformers' Trainer: arguments, going on and stopping, evaluation, and what a person sees of it."""
