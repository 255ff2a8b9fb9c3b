"""From text to token files: sources → blocks → documents → ids → parts → a finished folder."""
