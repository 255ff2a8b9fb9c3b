"""What the scripts that measure training share: clocks, loops, checks. Not part of the package."""
