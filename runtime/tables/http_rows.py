# SPDX-License-Identifier: Apache-2.0
"""Sparse rows, laid over each other in one array so that no two entries meet (a comb).

A row's number is where it starts. An entry is found at number + symbol, and says its symbol; as no
two rows start at the same place, that says whose it is.
Source: R. E. Tarjan, A. C. Yao, "Storing a sparse table", CACM 22(11), 1979.
"""

from __future__ import annotations

from collections.abc import Collection


class RowsFullError(ValueError):
    """The next row does not fit below the limit."""


class Rows:
    """Places for rows, which are given out one by one; those with many entries should come first.

    Args:
        first: the lowest number that a row may have.
        width: symbols are below this.
        limit: how far the array may grow.

    Attributes:
        size: entries of the array so far, with the holes.
    """

    def __init__(self, *, first: int, width: int, limit: int) -> None:
        self._width, self._limit, self._first = width, limit, first
        self._taken = bytearray(first + 2 * width)
        self._started = bytearray(first + 2 * width)
        # Where rows of one shape have not fitted, none ever will: nothing is given back.
        self._from: dict[tuple[int, ...], int] = {}
        self.size = first

    def place(self, symbols: Collection[int]) -> int:
        """A number for a row with these symbols.

        Raises:
            RowsFullError: there is none.
        """
        shape = tuple(sorted(symbols)) or (0,)
        number = self._fit(shape)
        if number + self._width > self._limit:
            raise RowsFullError(f"more than {self._limit} entries")
        self._from[shape] = number + 1
        self._started[number] = 1
        for symbol in shape if symbols else ():
            self._taken[number + symbol] = 1
        self.size = max(self.size, number + shape[-1] + 1)
        return number

    def _fit(self, shape: tuple[int, ...]) -> int:
        """The first place where all entries are free."""
        least, rest = shape[0], shape[1:]
        taken, started, width = self._taken, self._started, 2 * self._width
        find = taken.find  # which grows in place
        number = self._from.get(shape, self._first)
        while True:
            number = find(0, number + least) - least
            while number < self._first or number + width > len(taken):
                self._grow()
                number = find(0, max(number, self._first) + least) - least
            if not started[number]:
                for one in rest:
                    if taken[number + one]:
                        break
                else:
                    return number
            number += 1

    def _grow(self) -> None:
        more = bytes(max(len(self._taken), 2 * self._width))
        self._taken += more
        self._started += more
