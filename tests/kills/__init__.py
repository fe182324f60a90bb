"""Producers and consumers as real processes, killed and stopped at random, and an account of every message.

    python -m tests.kills                       the long form, with a line for each blow and the account at the end
    python -m tests.kills --seed 7              the same blows in the same order again
    python -m tests.kills --url kafka://…       on a server instead of a file
    python -m tests.kills --crashes             a crash before each statement of SQL that a program runs

``sender.py`` and ``worker.py`` are the programs, each with a journal of its own (``journal.py``) that survives a kill.
``conductor.py`` starts, kills and stops them; ``crashing.py`` has them die between two statements. ``standstills.py``
notes when the machine or the server stood still. ``reckoning.py`` is pure: from the journals and the log it says what
was lost, what was handled twice and why (``repeats.py``), and what must never have happened. A kill or a stop is a
reason only within bounds (``lives.py``). ``test_reckoning.py`` has a made-up run on each side of each of them.
"""
