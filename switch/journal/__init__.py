"""The journal: one store of records, commits and their indexes; how it is searched, proven and mended."""
