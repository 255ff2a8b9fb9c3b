"""Models on disk: our own folders, and the files of other systems."""
