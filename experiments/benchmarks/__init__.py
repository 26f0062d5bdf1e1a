"""How fast and how large, against the peers, in one process.

Each prints one JSON object of named figures as its last line.
"""
