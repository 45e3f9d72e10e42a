"""Components of the methods: teachers, blocks, the head, networks and losses."""
