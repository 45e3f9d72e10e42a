"""The head of every graph, which computes the anomaly map from features, in each form that a backend takes."""
