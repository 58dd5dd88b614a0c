"""Seeded fuzzing that knows the structure of every input: ``python tests/fuzz/run.py --help``.

A *kind* of input (`kind.py`) has good inputs and a use of them, in ``clients.py``, ``options.py``, ``studies.py`` and
``traces.py``. A *case* is a kind, a seed and a number: one good input, changed by mutators (`mutate.py`,
`structured.py`), used in a fresh directory, and judged (`case.py`): refused in one sentence, accepted with a result
that holds the invariants (`invariants.py`), or a defect. Anyone makes the same case again by its name and numbers.
"""
