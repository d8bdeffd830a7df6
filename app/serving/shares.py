"""What is taken of a whole, and by whom: connections, places in the queue, bytes of bodies."""

from __future__ import annotations

import ipaddress
from collections import Counter


class Shares:
    """Counts what is taken, all together and by each address.

    Args:
        whole: how much there is.
        each: how much of it one address may take.
    """

    def __init__(self, whole: int, each: int) -> None:
        self.whole, self.each, self.taken = whole, each, 0
        self._by: Counter[str] = Counter()

    def free(self, who: str) -> int:
        """Return how much one address may still take."""
        return min(self.whole - self.taken, self.each - self._by[who])

    def take(self, who: str, amount: int) -> bool:
        """Take so much if it is free; say whether it was."""
        if amount > self.free(who):
            return False
        self.taken += amount
        self._by[who] += amount
        return True

    def give_back(self, who: str, amount: int) -> None:
        """Return what was taken."""
        self.taken -= amount
        self._by[who] -= amount
        if not self._by[who]:
            del self._by[who]  # addresses are as many as the internet has


def party(client: tuple[str, int] | None) -> str:
    """Return by what a client's address is counted; of IPv6 everyone has 2^64: the first half."""
    host = client[0] if client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 6 and (mapped := address.ipv4_mapped):
        return str(mapped)
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else host
