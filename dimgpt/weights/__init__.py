"""Models on disk: dimgpt's folders, and the files of other systems."""
