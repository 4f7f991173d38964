"""A client's side of TLS, bytes in and bytes out, by GnuTLS: so that what it sends can be spoiled before it is sent.

Bound by hand, because Python's own module has no pre-shared keys, and no updates of keys.
"""

import ctypes
import errno

GNUTLS = ctypes.CDLL("libgnutls.so.30")

# Source: gnutls/gnutls.h.
CLIENT = 1 << 1
NONBLOCK = 1 << 3
CRD_CERTIFICATE = 1
CRD_PSK = 4
PSK_KEY_HEX = 1
X509_FMT_PEM = 1
KU_PEER = 1
E_AGAIN = -28
E_WARNING_ALERT_RECEIVED = -16
E_INTERRUPTED = -52
PASSING = (E_INTERRUPTED, E_WARNING_ALERT_RECEIVED)

VERSIONS = ("TLS1.2", "TLS1.3")
PRIORITY = "NORMAL:-VERS-ALL:+VERS-{version}:+ECDHE-PSK:+DHE-PSK:+PSK"

PUSH = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
PULL = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
PULL_TIMEOUT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)


class Datum(ctypes.Structure):
    _fields_ = (("data", ctypes.c_char_p), ("size", ctypes.c_uint))


class TlsError(Exception):
    """TLS has failed, on this side or the other."""


GNUTLS.gnutls_record_send.restype = ctypes.c_ssize_t
GNUTLS.gnutls_record_send.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
GNUTLS.gnutls_record_recv.restype = ctypes.c_ssize_t
GNUTLS.gnutls_record_recv.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
GNUTLS.gnutls_strerror.restype = ctypes.c_char_p


def must(error):
    if error < 0:
        raise TlsError(GNUTLS.gnutls_strerror(error).decode())


class Credentials:
    """What clients prove themselves by: a certificate, a pre-shared key, or nothing.  Never freed: one of each is enough."""

    def __init__(self, authority, identity):
        self.certificate = ctypes.c_void_p()
        self.nothing = ctypes.c_void_p()
        self.key = ctypes.c_void_p()
        for credentials in (self.certificate, self.nothing):
            must(GNUTLS.gnutls_certificate_allocate_credentials(ctypes.byref(credentials)))
        names = (authority.path("client-cert.pem").encode(), authority.path("client-key.pem").encode())
        must(GNUTLS.gnutls_certificate_set_x509_key_file(self.certificate, *names, X509_FMT_PEM))
        must(GNUTLS.gnutls_psk_allocate_client_credentials(ctypes.byref(self.key)))
        with open(authority.psk, encoding="ascii") as file:
            text = file.read().split(":")[1].strip().encode()
        datum = Datum(text, len(text))
        must(GNUTLS.gnutls_psk_set_client_credentials(self.key, identity.encode(), ctypes.byref(datum), PSK_KEY_HEX))

    def kinds(self):
        return ((CRD_CERTIFICATE, self.certificate), (CRD_PSK, self.key), (CRD_CERTIFICATE, self.nothing))


class TlsPeer:
    """One session, in VERSION, with one of Credentials.kinds().  close() frees it."""

    def __init__(self, kind, version):
        self.outgoing = bytearray()
        self.incoming = bytearray()
        self.session = ctypes.c_void_p()
        must(GNUTLS.gnutls_init(ctypes.byref(self.session), CLIENT | NONBLOCK))
        self.callbacks = (PUSH(self.push), PULL(self.pull), PULL_TIMEOUT(lambda _session, _ms: bool(self.incoming)))
        must(GNUTLS.gnutls_priority_set_direct(self.session, PRIORITY.format(version=version).encode(), None))
        must(GNUTLS.gnutls_credentials_set(self.session, *kind))
        GNUTLS.gnutls_transport_set_push_function(self.session, self.callbacks[0])
        GNUTLS.gnutls_transport_set_pull_function(self.session, self.callbacks[1])
        GNUTLS.gnutls_transport_set_pull_timeout_function(self.session, self.callbacks[2])

    def close(self):
        GNUTLS.gnutls_deinit(self.session)
        self.callbacks = ()

    def push(self, _transport, data, count):
        self.outgoing += ctypes.string_at(data, count)
        return count

    def pull(self, _transport, data, count):
        if not self.incoming:
            GNUTLS.gnutls_transport_set_errno(self.session, errno.EAGAIN)
            return -1
        count = min(count, len(self.incoming))
        ctypes.memmove(data, bytes(self.incoming[:count]), count)
        del self.incoming[:count]
        return count

    def take(self):
        """What is to be sent since the last time."""
        data = bytes(self.outgoing)
        self.outgoing.clear()
        return data

    def shake_hands(self, received=b""):
        """Go on with the handshake; returns whether it is complete."""
        self.incoming += received
        error = E_INTERRUPTED
        while error in PASSING:
            error = GNUTLS.gnutls_handshake(self.session)
        if error == E_AGAIN:
            return False
        must(error)
        return True

    def encrypt(self, data):
        """DATA as records."""
        view = memoryview(data)
        while view:
            sent = GNUTLS.gnutls_record_send(self.session, bytes(view[:16384]), min(len(view), 16384))
            must(sent)
            view = view[sent:]
        return self.take()

    def decrypt(self, count, received=b""):
        """At most COUNT bytes of what came: empty at the end of TLS, None: not without more of it."""
        self.incoming += received
        buffer = ctypes.create_string_buffer(count)
        got = E_INTERRUPTED
        # Behind a message of TLS's own, GnuTLS says E_AGAIN although there is more.
        while got in PASSING or (got == E_AGAIN and self.incoming):
            got = GNUTLS.gnutls_record_recv(self.session, buffer, count)
        if got == E_AGAIN:
            return None
        must(got)
        return buffer.raw[:got]

    def update_keys(self):
        """TLS 1.3: new keys, and a request for the server's."""
        must(GNUTLS.gnutls_session_key_update(self.session, KU_PEER))
        return self.take()

    def end(self):
        must(GNUTLS.gnutls_bye(self.session, 1))
        return self.take()


def records(data):
    """DATA, whole records of TLS, one by one."""
    found, at = [], 0
    while at < len(data):
        end = at + 5 + int.from_bytes(data[at + 3 : at + 5])
        found.append(data[at:end])
        at = end
    return found
