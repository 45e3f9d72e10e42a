"""Tests: the folders mirror edgead/; what several of them share is in helpers/ and fakes/."""
