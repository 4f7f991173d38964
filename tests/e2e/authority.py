"""Certificates and keys for tests, made by certtool and psktool when they are needed; and TLS on a Wire, by OpenSSL."""

import os
import ssl
import subprocess

import wire
from harness import equal, write_text

CA = "cn = Test authority\nca\ncert_signing_key\n"
LEAF = "cn = {name}\ndns_name = {dns}\nip_address = 127.0.0.1\nsigning_key\n{purposes}"
PURPOSES = "tls_www_server\ntls_www_client\n"
CURRENT = "expiration_days = 30\n"
EXPIRED = 'activation_date = "2020-01-01 00:00:00"\nexpiration_date = "2020-02-01 00:00:00"\n'
FUTURE = 'activation_date = "2090-01-01 00:00:00"\nexpiration_date = "2091-01-01 00:00:00"\n'
IDENTITY = "alice"


def tool(*words):
    subprocess.run([str(word) for word in words], check=True, capture_output=True, timeout=30)


class Authority:
    """One that signs certificates, in a directory of its own, which is also one that libnbd and QEMU take as a client's."""

    def __init__(self, env):
        self.directory = env.path("pki")
        os.mkdir(self.directory)
        self.make_key("ca")
        self.write("ca.template", CA + CURRENT)
        tool(
            *("certtool", "--generate-self-signed", "--load-privkey", self.path("ca-key.pem")),
            *("--template", self.path("ca.template"), "--outfile", self.path("ca-cert.pem")),
        )
        self.issue("server", "localhost")
        self.issue("client", "client.example")
        self.psk = self.path("keys.psk")
        tool("psktool", "-u", IDENTITY, "-p", self.psk)

    def path(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, text):
        write_text(self.path(name), text)

    def make_key(self, name):
        tool("certtool", "--generate-privkey", "--key-type=ecdsa", "--outfile", self.path(f"{name}-key.pem"))

    def issue(self, name, dns, validity=CURRENT, purposes=PURPOSES):
        """NAME-cert.pem with NAME-key.pem."""
        self.make_key(name)
        self.write(f"{name}.template", LEAF.format(name=name, dns=dns, purposes=purposes) + validity)
        tool(
            *("certtool", "--generate-certificate", "--load-privkey", self.path(f"{name}-key.pem")),
            *("--load-ca-certificate", self.path("ca-cert.pem"), "--load-ca-privkey", self.path("ca-key.pem")),
            *("--template", self.path(f"{name}.template"), "--outfile", self.path(f"{name}-cert.pem")),
        )

    def settings(self, mode="allowed", more=""):
        """A [tls] section with everything."""
        return (
            f"[tls]\nmode = {mode}\ncertificate = {self.path('server-cert.pem')}\n"
            f"key = {self.path('server-key.pem')}\nca = {self.path('ca-cert.pem')}\n"
            f"psk-file = {self.psk}\n{more}\n"
        )

    def context(self, client="client"):
        """OpenSSL's, for a client that trusts this authority and has its certificate; None: without one."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.path("ca-cert.pem"))
        if client:
            context.load_cert_chain(self.path(f"{client}-cert.pem"), self.path(f"{client}-key.pem"))
        return context


def start_tls(client, context):
    """Go into TLS, after the greeting."""
    equal(client.answer_kind(wire.OPT_STARTTLS), wire.REP_ACK, "answer to STARTTLS")
    client.sock = context.wrap_socket(client.sock, server_hostname="localhost", suppress_ragged_eofs=False)
