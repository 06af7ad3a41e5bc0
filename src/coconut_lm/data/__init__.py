"""Data sets: one file each (parse, make, score), all of them lists of Example."""
