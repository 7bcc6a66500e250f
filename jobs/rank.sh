#!/usr/bin/env bash
# Runs its arguments, one rank of a training, and leaves the file $STOPPED_FILE where that stopped with exit
# code 75: saved, to be started again. See environment.sh for why a file.

# The signals that mean "save and stop" reach this shell as well: it goes on, to see how the rank ends.
trap : TERM USR1 INT
"$@"
code=$?
if ((code == 75)); then
    touch "$STOPPED_FILE"
fi
exit "$code"
