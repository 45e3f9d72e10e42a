"""Jobs of many commands, one after the other on this machine or beside each other on a Ray cluster."""
