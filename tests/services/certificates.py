"""A certificate authority for one test run, and what it signs: a server and a client. By openssl, or LibreSSL."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.services.programs import OPENSSL
from tests.services.service import ServiceFailed

# What Python 3.13 is strict about by default: usage of keys, and identifiers of both ends.
_AUTHORITY = """
[req]
distinguished_name = name
x509_extensions = authority
prompt = no
[name]
CN = rustmq_sdk tests
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
"""
_SIGNED = """
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""
_USES = {
    "server": "extendedKeyUsage = serverAuth, clientAuth\nsubjectAltName = DNS:localhost, IP:127.0.0.1\n",
    "client": "extendedKeyUsage = clientAuth\n",
}
_DAYS = "3650"


def certify(folder: Path) -> None:
    """Writes ``ca.pem``; ``server.key``, ``server.crt`` and both as ``server.pem``; the same three for ``client``.

    Raises:
        ServiceFailed: openssl did not do it; with its words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ca.cnf").write_text(_AUTHORITY)
    _key(folder, "ca")
    _openssl(folder, "req", "-x509", "-new", "-config", "ca.cnf", "-key", "ca.key", "-days", _DAYS, "-out", "ca.pem")
    for name, use in _USES.items():
        (folder / f"{name}.ext").write_text(_SIGNED + use)
        _key(folder, name)
        request = ("-config", "ca.cnf", "-key", f"{name}.key", "-subj", f"/CN={name}", "-out", f"{name}.csr")
        _openssl(folder, "req", "-new", *request)
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", _DAYS, "-extfile", f"{name}.ext")
        _openssl(folder, "x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.crt")
        (folder / f"{name}.pem").write_text(
            "".join((folder / part).read_text() for part in (f"{name}.key", f"{name}.crt", "ca.pem"))
        )


def _key(folder: Path, name: str) -> None:
    curve = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-pkeyopt", "ec_param_enc:named_curve")
    _openssl(folder, "genpkey", *curve, "-out", f"{name}.key")
    (folder / f"{name}.key").chmod(0o600)


def _openssl(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [OPENSSL.required(), *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ServiceFailed(f"openssl {' '.join(arguments)}\n{done.stdout}{done.stderr}")
