"""From text to token files.

The path of a document:

    listing.py          lists the files of a source; `plan.py` groups them into shards
          |
    blocks.py           cuts files into blocks of complete records, about 1 MiB each
          |             (`tables.py` cuts and parses JSON lines, CSV and Parquet)
      items.py          a worker gets a block of a missing part, parses its records,
      quality.py        drops documents that are too short, too long or in another language,
      encoding.py       cleans and encodes the rest; `splits.py` computes the keys of the splits
          |
    part_writer.py      the parent drops copies and writes token files; `parts.py` records the part
          |
    finishing.py        joins the indexes, writes the manifest and renames the folder

`preparation.py` does all of this for one source, in one run or in shares.
"""
