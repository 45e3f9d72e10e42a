"""What the methods are built from: teachers, blocks, the head, networks and losses."""
