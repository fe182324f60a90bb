"""The core put to work, on anyio alone."""
