"""Pyro's published examples, small and written anew: one file an example, each with ``build()``.

Each keeps what its author wrote: the names and the sizes of its plates, its masks, its own
subsampling, the order and the names of its arguments, its objective. Nothing in them is bent to
what this library asks of a pair. ``build()`` returns an :class:`.example.Example`.
"""
