"""How large the pictures in an AV1 stream are, whatever the file around it says.

A decoder makes room for what the stream says: an AVIF of 64 × 64 pixels and 3 kB took 968 MiB.
"""

from __future__ import annotations

from collections.abc import Iterator

_SEQUENCE_HEADER = 1
_HEADER_BYTES = 512  # more than 32 operating points with everything that they may have


def sequence_sizes(stream: memoryview) -> Iterator[tuple[int, int]]:
    """Yield the largest width and height that a unit allows; zeros for all but sequence headers.

    Args:
        stream: open bitstream units, one behind the other.

    Source:
        AV1 Bitstream & Decoding Process Specification, 5.3 (open bitstream unit), 4.10.5 (leb128).
    """
    place = 0
    while place < len(stream):
        head = stream[place]
        place += 2 if head & 4 else 1
        size = len(stream) - place
        if head & 2:
            size = shift = 0
            for byte in stream[place : place + 8]:
                place += 1
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
        header = head >> 3 & 15 == _SEQUENCE_HEADER
        content = bytes(stream[place : place + min(size, _HEADER_BYTES)]) if header else b""
        yield _sequence_size(content) if header else (0, 0)
        place += size


class _Bits:
    """Reads numbers of so many bits; zeros beyond the end."""

    def __init__(self, data: bytes) -> None:
        self.value, self.left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, bits: int) -> int:
        self.left -= bits
        shifted = self.value >> self.left if self.left >= 0 else 0
        return shifted & ((1 << bits) - 1)


def _sequence_size(header: bytes) -> tuple[int, int]:
    """Return width and height from a sequence header.

    Source:
        The same, 5.5.1 to 5.5.5.
    """
    read = _Bits(header).read
    read(4)  # profile, still picture
    if read(1):  # reduced header
        read(5)
    else:
        delay_bits = 0
        if read(1):  # timing
            read(64)
            if read(1):
                zeros = 0
                while zeros < 32 and not read(1):
                    zeros += 1
                read(zeros)
            if read(1):  # decoder model
                delay_bits = read(5) + 1
                read(42)
        display_delay = read(1)
        for _ in range(read(5) + 1):
            read(12)
            if read(5) > 7:
                read(1)
            if delay_bits and read(1):
                read(2 * delay_bits + 1)
            if display_delay and read(1):
                read(4)
    width_bits, height_bits = read(4) + 1, read(4) + 1
    return read(width_bits) + 1, read(height_bits) + 1
