"""What the installed image codecs make of a few tiny images, as one digest.

Pillow and the codecs that it comes with are in the key of every view by this digest and not by
their versions, so that an upgrade costs a pass only where it changes pixels. The lossy codecs
alone can: libjpeg-turbo, libwebp, OpenJPEG, and libaom or dav1d for AVIF.
"""

import base64
import hashlib
from functools import lru_cache

from headstart.tasks.dataset.decode import UndecodableImage, decode_image

_JPEG = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIs"
    "IxwcKDcpLDAxNDQ0Hyc5PTgyPC4zNDL/2wBDAQkJCQwLDBgNDRgyIRwhMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIy"
    "MjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjL/wAARCAAVABsDASIAAhEBAxEB/8QAHwAAAQUBAQEBAQEAAAAAAAAA"
    "AAECAwQFBgcICQoL/8QAtRAAAgEDAwIEAwUFBAQAAAF9AQIDAAQRBRIhMUEGE1FhByJxFDKBkaEII0KxwRVS0fAk"
    "M2JyggkKFhcYGRolJicoKSo0NTY3ODk6Q0RFRkdISUpTVFVWV1hZWmNkZWZnaGlqc3R1dnd4eXqDhIWGh4iJipKT"
    "lJWWl5iZmqKjpKWmp6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi4+Tl5ufo6erx8vP09fb3+Pn6/8QA"
    "HwEAAwEBAQEBAQEBAQAAAAAAAAECAwQFBgcICQoL/8QAtREAAgECBAQDBAcFBAQAAQJ3AAECAxEEBSExBhJBUQdh"
    "cRMiMoEIFEKRobHBCSMzUvAVYnLRChYkNOEl8RcYGRomJygpKjU2Nzg5OkNERUZHSElKU1RVVldYWVpjZGVmZ2hp"
    "anN0dXZ3eHl6goOEhYaHiImKkpOUlZaXmJmaoqOkpaanqKmqsrO0tba3uLm6wsPExcbHyMnK0tPU1dbX2Nna4uPk"
    "5ebn6Onq8vP09fb3+Pn6/9oADAMBAAIRAxEAPwDyi00gKRkDHUc4zx/n9K3bbRwojJTPPII6V0FppIP8GRnOD2rb"
    "s9GywyBtIwQefeunDu5yZfm22pztppR3L8rbM42n1rXTRZdgwm4dM4HNdNbaWAMsFAHcj6DmpxC2OI+PcZNdWLzj"
    "DYBL2z1fTd+p9xgc0co6akVrZR7fb0P0BrctbGLBbvtyePbNFFcNB2PwzAVZ2TuWREk7HIwob7orRh06PylwQPYL"
    "RRX5liq9SriKk6ju7s/QsDOXJa5//9k="
)
"""27 x 21 pixels, quality 75, chroma halved both ways, as most photos."""
_PROGRESSIVE = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZG"
    "NywtQFdBRkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09P"
    "T09PT09PT09PT09PT09PT09PT09PT09PT0//wgARCAAVABsDASEAAhEBAxEB/8QAGAAAAwEBAAAAAAAAAAAAAAAA"
    "AQMEAgX/xAAWAQEBAQAAAAAAAAAAAAAAAAAFAgT/2gAMAwEAAhADEAAAAeJTdUP0pKoyg0mEhRQO3EK//8QAGRAB"
    "AQEAAwAAAAAAAAAAAAAAAAIBERIx/9oACAEBAAEFAshkMh0ZCYZDhksl6yX/xAAZEQADAQEBAAAAAAAAAAAAAAAA"
    "AgMBESH/2gAIAQMBAT8Bk5NyTkm7hJie+H//xAAaEQADAAMBAAAAAAAAAAAAAAAAAQIDBBEx/9oACAECAQE/AZES"
    "bGw8XEvSTJbu22f/xAAUEAEAAAAAAAAAAAAAAAAAAAAw/9oACAEBAAY/Ak//xAAdEAACAgEFAAAAAAAAAAAAAAAA"
    "ARExECFRYXGR/9oACAEBAAE/ITr0PITxRxYd46ChRCYTB//aAAwDAQACAAMAAAAQMmf7/8QAFxEAAwEAAAAAAAAA"
    "AAAAAAAAAAEhEP/aAAgBAwEBPxAY3FgNjHyf/8QAHBEAAgICAwAAAAAAAAAAAAAAAAERUSExYaGx/9oACAECAQE/"
    "ENoHhZOIsgtrrocvO8P/xAAhEAACAgEDBQEAAAAAAAAAAAABEQAhQTFRoWFxgZHR4f/aAAgBAQABPxBRFV+RAIxe"
    "KPQYmTDdCDPJbRpDFJFwA0AAZIjY9w4r97OKvKfEBhhB6CIbXif/2Q=="
)
"""The same, progressive, quality 60, chroma halved across."""
_WEBP = (
    "UklGRv4AAABXRUJQVlA4IPIAAABwBgCdASobABUAPrVMn0mnJKKhMAgA4BaJbACdMoRwJxm6qSFwLDIju+mzrdNq"
    "Ep75dapH3CTrZWzHvAAA/vfGjxS4BzRK64MGVOj9U2ZwIFUYz2i/ARAgSAtMM+5mj9RJHC4WPYNrsTEL3f6Uneam"
    "+ARf4TNcReEY7E7vVKcJfzXPzOsR3Lq1wQNDyUFC8A5T7/j69k1QD4k9dU3g9G4R9eHI8iOQ9JnEAJojYf5Ps/nr"
    "PTvb5Bv/u3YYE7Juu0Hlq5p0XS6y5B0aXVbzqxmQjJwwvuRgXT9t/71r8F/9v2Drf6Mlv71uvnym4gZ+tIdwAA=="
)
"""The same, quality 60."""
_AVIF = (
    "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAADrbWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAA"
    "AAAAAAAAAAAAAAAAAAAOcGl0bQAAAAAAAQAAAB5pbG9jAAAAAEQAAAEAAQAAAAEAAAETAAAAlgAAAChpaW5mAAAA"
    "AAABAAAAGmluZmUCAAAAAAEAAGF2MDFDb2xvcgAAAABqaXBycAAAAEtpcGNvAAAAFGlzcGUAAAAAAAAAGwAAABUA"
    "AAAQcGl4aQAAAAADCAgIAAAADGF2MUOBAAwAAAAAE2NvbHJuY2x4AAEADQAGgAAAABdpcG1hAAAAAAAAAAEAAQQB"
    "AoMEAAAAnm1kYXQSAAoJGBE1RogIaDQgMoYBGUeHhiGHnnnmgFUAzubmTeGsO8vro/zS/9Sa9kMDb58KK99GiUmH"
    "4hRj4OITMATAinClQu1wwg80GQrqlKFNHiKW/lYv7mRy2vo5ZiNNCCufxchMxRLY57sDnzhgjY99GpHHnsLLxJnf"
    "H4Pav2sc2Q3AeZdX5fo2nQw+VkYjczmgDgb2MMg="
)
"""The same, quality 50."""
_JPEG2000 = (
    "/0//UQAvAAAAAAAbAAAAFQAAAAAAAAAAAAAAGwAAABUAAAAAAAAAAAADBwEBBwEBBwEB/1IADAAAAAEAAgQEAAD/XA"
    "ARQl9SUAVQBVBHV9NX01di/2QAJQABQ3JlYXRlZCBieSBPcGVuSlBFRyB2ZXJzaW9uIDIuNS40/5AACgAAAAAA4gAB"
    "/5PHzGQRT4cQfCHPkigmWKL5p9qxWmhGjkbj/NOfx8xsENxCEERKSdkqSpWkfp1Pd2f7t7ODCfIa3WqLx9CAER2/eG"
    "o8bVZXaBG0F2f/Yq/TsOKIuGEHN+PG0utJXJ7AngcQFpiYt5WesiPNtJ7AOIWKwOMAG8PLE9MvWcY4XCITw+IjD4CY"
    "E4Az/0y6MhOT0RNTQDKtaRBv8i5onIz0aR51bAcj8KA3zKLA1EAbIkb3xR/OybG1BHjkZuC8EYDA1QAbIkniQllim7"
    "nlDkyinBe5WT8IDf/Z"
)
"""The same, a bare codestream with the irreversible wavelets, to a fifth of its size."""


@lru_cache(maxsize=1)
def codecs_digest() -> str:
    """Return the SHA-256 (64 hexadecimal characters) of the pixels of the probe images."""
    digest = hashlib.sha256()
    for text in (_JPEG, _PROGRESSIVE, _WEBP, _AVIF, _JPEG2000):
        data = base64.b64decode(text)
        try:
            pixels = decode_image(data, max_pixels=2**16)
        except UndecodableImage as error:  # built without that codec: no such file has a view
            digest.update(error.reason.encode())
        else:
            digest.update(pixels.tobytes())
    return digest.hexdigest()
