"""Import of other libraries' checkpoints as training runs, without running the code in them."""
