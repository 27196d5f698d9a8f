"""The application of the tour of Django."""
