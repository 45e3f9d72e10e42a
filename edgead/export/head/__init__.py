"""The last step of every graph, from features to the anomaly map, in each form that a backend takes."""
