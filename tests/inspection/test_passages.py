import numpy as np
import pytest

from dimgpt.data.token_file import read_manifest
from dimgpt.data.token_writer import TokenFileWriter
from dimgpt.inspection.passages import PassageIndex, copied_share, sort_suffixes
