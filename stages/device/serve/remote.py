"""Pictures of other machines, never of this one or its neighbours.

A name is resolved once, every address it has must be public, and the connection goes to the address that was looked at
(no second look-up that could answer otherwise); a redirect is a new URL with the same checks. Proxies of the
environment are not used: they would resolve names elsewhere.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from stages.device.serve.api_errors import ApiError

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 3
_TOO_LONG = "It took too long."
# RFC 6052 and RFC 3056: IPv4 addresses inside of IPv6 ones, which a gateway would turn back.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(text: str) -> bool:
    """Whether an address is one of the internet: not private, loopback, link-local, multicast, reserved or unspecified.

    IPv6 addresses that carry an IPv4 one are as public as that.
    """
    try:
        address: IpAddress = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        carried: IpAddress | None = address.ipv4_mapped or address.sixtofour
        if address.teredo is not None:
            return False
        if address in _NAT64:
            carried = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if carried is not None:
            return is_public(str(carried))
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def resolve(host: str, port: int) -> list[str]:
    """All addresses of a name; raises OSError where it has none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True)
class RemotePictures:
    """Fetches pictures over HTTP.

    Attributes:
        seconds: for one picture, redirects included.
        look_up: resolves names.
        allowed: which addresses may be connected to.
    """

    seconds: float
    look_up: Resolve = resolve
    allowed: Callable[[str], bool] = is_public

    def __call__(self, url: str, place: str, limit: int) -> bytes:
        """What a URL names.

        Raises:
            ApiError: the URL, its machine or its answer cannot be used.
        """
        deadline = time.monotonic() + self.seconds
        for _ in range(_MOST_REDIRECTS + 1):
            found = self._get(url, place, limit, deadline)
            if isinstance(found, bytes):
                return found
            try:
                url = urljoin(url, found)
            except ValueError:
                raise _refused(place, "It redirects to what is not a URL.") from None
        raise _refused(place, "It redirects too often.")

    def _get(self, url: str, place: str, limit: int, deadline: float) -> bytes | str:
        """One request: the picture, or where it is."""
        split, host, port = _checked(url, place)
        address = self._address(host, port, place)
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise _refused(place, _TOO_LONG)
        connection = _Connection(split.scheme, host, port, address, remaining)
        # A machine that sends a byte now and then would never run into a socket's time limit.
        watchdog = threading.Timer(remaining, connection.abort)
        watchdog.start()
        try:
            path = (split.path or "/") + (f"?{split.query}" if split.query else "")
            connection.request("GET", path, headers={"Accept": "image/*", "User-Agent": "bluelm"})
            answer = connection.getresponse()
            if answer.status in _REDIRECTS and (where := answer.headers.get("Location")):
                return str(where)
            if answer.status != 200:
                raise _refused(place, f"Its machine answers {answer.status}.")
            data = answer.read(limit + 1)
            if len(data) <= limit and answer.length:  # what is left of what was announced
                raise _refused(place, _TOO_LONG if time.monotonic() >= deadline else "It came only in part.")
        except (OSError, http.client.HTTPException, ValueError, UnicodeError):
            late = time.monotonic() >= deadline
            raise _refused(place, _TOO_LONG if late else "Its machine cannot be reached.") from None
        finally:
            watchdog.cancel()
            connection.close()
        if len(data) > limit:
            raise _refused(place, f"It is larger than the {limit:,} bytes that this server takes (limits.picture_mb).")
        return data

    def _address(self, host: str, port: int, place: str) -> str:
        """The address to connect to; raises ApiError where any of the name's is not public."""
        try:
            addresses = self.look_up(host, port)
        except (OSError, UnicodeError):
            addresses = []
        if not addresses:
            raise _refused(place, "Its machine is not known.")
        if not all(self.allowed(address) for address in addresses):
            raise _refused(place, "Its machine is not on the public internet.")
        return addresses[0]


class _Connection(http.client.HTTPConnection):
    """Connects to an address that was checked, as the host that was named."""

    def __init__(self, scheme: str, host: str, port: int, address: str, seconds: float) -> None:
        super().__init__(host, port, timeout=seconds)
        self._scheme, self._address = scheme, address
        self._plain: socket.socket | None = None

    def connect(self) -> None:
        self._plain = socket.create_connection((self._address, self.port), self.timeout)
        self.sock = self._plain
        if self._scheme == "https":
            self.sock = ssl.create_default_context().wrap_socket(self._plain, server_hostname=self.host)

    def abort(self) -> None:
        """Ends whatever another thread waits for here."""
        if self._plain is not None:
            # http.client lets go of its socket while an answer is still being read from it.
            with contextlib.suppress(OSError):
                self._plain.shutdown(socket.SHUT_RDWR)


def _checked(url: str, place: str) -> tuple[SplitResult, str, int]:
    try:
        split = urlsplit(url)
        host, port = split.hostname, split.port
    except ValueError:
        raise _refused(place, "It is not a URL.") from None
    if split.scheme not in _PORTS or not host or split.username is not None or split.password is not None:
        raise _refused(place, "Expected http:// or https:// with a host and without a password.")
    return split, host, port or _PORTS[split.scheme]


def _refused(place: str, why: str) -> ApiError:
    return ApiError(400, f"The picture at '{place}' cannot be fetched: {why}", "invalid_image_url", place)
