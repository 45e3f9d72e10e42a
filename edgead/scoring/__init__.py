"""From scores to decisions: the threshold from normal scores, and how good the decisions are."""
