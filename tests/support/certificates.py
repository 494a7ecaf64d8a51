"""Certificates for tests: an authority of its own, and what it signs."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shared.tls import Files

NOW = datetime.now(UTC)


@dataclass
class Signed:
    """`both`: key and certificate in one file, as Kafka's PEM key stores want it."""

    files: Files
    both: Path
    ends: float


class Authority:
    """Writes its own certificate to `file`."""

    def __init__(self, directory: Path, name: str = "tutti test authority") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._name, self._key = directory, _name(name), ec.generate_private_key(ec.SECP256R1())
        key_usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        certificate = (
            _builder(self._name, self._name, self._key, NOW - timedelta(days=2), NOW + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(key_usage, critical=True)
            .add_extension(identifier, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.file = directory / "authority.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def sign(self, name: str, *, days: float = 10) -> Signed:
        """A certificate of `name`, which is this machine; `days` below zero: it has ended."""
        key, ends = ec.generate_private_key(ec.SECP256R1()), (NOW + timedelta(days=days)).replace(microsecond=0)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        certificate = (
            _builder(_name(name), self._name, key, ends - timedelta(days=1) - timedelta(days=abs(days)), ends)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        paths = [self._directory / f"{name}{ending}" for ending in (".pem", ".key", ".both.pem")]
        for path, text in zip(paths, (pem, secret, secret + pem), strict=True):
            path.write_bytes(text)
        return Signed(Files(cert_file=str(paths[0]), key_file=str(paths[1])), paths[2], ends.timestamp())


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
