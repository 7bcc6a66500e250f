"""What a run leaves on the disk: whole or not there, held by one run at a time, gone on from by the same run alone."""
