"""How many values a MessagePack message holds, found without making them: a byte may become sixty in memory."""

from __future__ import annotations

import re

_ONE_BYTE = re.compile(rb"[\x00-\x9f\xc0-\xc3\xe0-\xff]+")  # small numbers, nil, booleans, heads of small containers
_BYTES = {0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9, 0xD4: 3, 0xD5: 4,
          0xD6: 6, 0xD7: 10, 0xD8: 18, 0xDC: 3, 0xDD: 5, 0xDE: 3, 0xDF: 5}  # fmt: skip
_BYTES_OF_LENGTH = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_EXTENSIONS = (0xC7, 0xC8, 0xC9)  # have a byte for their kind


def more_than(most: int, data: bytes) -> bool:
    """Whether `data` holds more than `most` values, containers and keys included. What is damaged may be miscounted."""
    place = count = 0
    while place < len(data) and count <= most:
        if run := _ONE_BYTE.match(data, place):
            count += run.end() - place
            place = run.end()
            continue
        count += 1
        place += _size(data, place)
    return count > most


def _size(data: bytes, place: int) -> int:
    """Bytes of the value at `place`; of a container, of its head."""
    head = data[place]
    if 0xA0 <= head <= 0xBF:
        return 1 + (head & 0x1F)
    if head in _BYTES:
        return _BYTES[head]
    width = _BYTES_OF_LENGTH[head]
    return 1 + width + int.from_bytes(data[place + 1 : place + 1 + width], "big") + (head in _EXTENSIONS)
