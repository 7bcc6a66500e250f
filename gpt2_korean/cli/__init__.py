"""The command line: argv → options, checked before torch is imported. Only the two scripts and server/ import it."""
