"""The tests."""

PATIENCE = 300  # seconds for what must happen; what takes a second on a good day has taken a minute on a busy machine
