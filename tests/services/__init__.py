"""Real servers for the tests: installed, started, killed and stopped by name, without Docker and without root.

``scripts/services`` is this package on a command line, :mod:`tests.services.plugin` is it in pytest. What a server
needs is one entry: a :class:`~tests.services.service.Service` in :mod:`tests.services.catalogue`. Nothing but the
standard library is imported, except by what tests use (``plugin.py``, ``kafka_server.py``).
"""
