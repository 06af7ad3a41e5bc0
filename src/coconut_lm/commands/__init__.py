"""A command a file. Rooms load inside the commands, so that --help is quick."""
