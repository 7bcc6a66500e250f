"""A saved model and a prompt → text on stdout: decoding, sampling, whole characters, the terminal."""
