#!/usr/bin/env bash
# Runs its arguments, one of several ranks of a training; the first to end leaves its exit code in $ENDED_FILE. See
# environment.sh for why a file, and why the first.

# The signals that mean "save and stop" reach this shell as well: it goes on, to see how the rank ends.
trap : TERM USR1 INT HUP
"$@"
code=$?
(set -o noclobber && echo "$code" >"$ENDED_FILE") 2>/dev/null
exit "$code"
