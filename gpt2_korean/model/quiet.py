"""Keeps libraries from telling what a user needs not, or is told in other words."""

from contextlib import contextmanager


def show_downloads_only():
    """Hide transformers' bars for loading and saving, which last moments, and keep the Hub's for downloads."""
    import huggingface_hub.utils
    import transformers

    transformers.utils.logging.disable_progress_bar()  # hides the Hub's as well
    huggingface_hub.utils.enable_progress_bars()


@contextmanager
def without_warnings():
    """Have transformers tell of errors alone."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
