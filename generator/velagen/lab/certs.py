"""A certificate authority for one lab, and what it signs."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_YEARS = datetime.timedelta(days=3650)


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    return key


def make_key(path: Path) -> None:
    """Write a new private key (PEM, P-256), and its public half to ``<path>.pub``."""
    key = _key(path)
    path.with_name(path.name + ".pub").write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


class Authority:
    """Signs certificates of servers on this machine's loopback, and of their clients."""

    def __init__(self, folder: Path) -> None:
        """Make the authority: ``ca.crt`` and ``ca.key`` in `folder`."""
        self.certificate_file = folder / "ca.crt"
        self._key = _key(folder / "ca.key")
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "velagen lab")])
        certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, certificate: Path, key: Path, *, also_client: bool = False) -> None:
        """Write a server certificate for localhost and 127.0.0.1 and its key.

        Args:
            also_client: etcd calls itself, and shows the certificate it serves with.
        """
        names = x509.SubjectAlternativeName(
            [
                x509.DNSName("localhost"),
                x509.DNSName("kubernetes.default.svc"),
                x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            ]
        )
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if also_client else [])]
        self._issue("localhost", certificate, key, names, x509.ExtendedKeyUsage(usages))

    def issue_client(self, name: str, certificate: Path, key: Path) -> None:
        """Write a certificate by which a server knows its client, and its key."""
        self._issue(name, certificate, key, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]))

    def _issue(self, name: str, certificate: Path, key: Path, *extensions: x509.ExtensionType) -> None:
        own = _key(key)
        builder = self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), own)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            # A clock that was set back by an hour must not make a new certificate invalid.
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + _YEARS)
        )
