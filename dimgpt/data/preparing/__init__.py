"""From text to token files.

The way of a document:

    listing.py          which files a source has; `plan.py` groups them into shards
          |
    blocks.py           a file is cut into blocks of whole records, about 1 MiB each
          |             (`tables.py` cuts and parses JSON lines, CSV and Parquet)
      items.py          a worker gets a block of a part that is not there, parses its records,
      quality.py        drops what is short, foreign or too long,
      encoding.py       cleans and encodes; the key of `splits.py` decides on the split
          |
    part_writer.py      the parent drops copies and writes token files; `parts.py` records the part
          |
    finishing.py        the indexes are joined, the manifest is written, the folder gets its name

`preparation.py` does all of this for one source, in one run or in shares.
"""
