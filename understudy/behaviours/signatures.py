"""Signatures by SSH keys, as Git makes them with `gpg.format=ssh`: OpenSSH's `ssh-keygen -Y`."""

import shutil
import subprocess
from pathlib import Path

NAMESPACE = "understudy"
"""What the signatures are for: one made for something else, a commit for example, is none here."""


class SignatureFailed(RuntimeError):
    """Something could not be signed, or a signature does not hold."""


class NoSigner(SignatureFailed):
    """OpenSSH's `ssh-keygen` is not installed."""


def sign_bytes(data: bytes, key: Path) -> bytes:
    """A signature by a private key, or by the agent that holds the one of a public key.

    `ssh-keygen` asks on the terminal for a passphrase. Raises SignatureFailed.
    """
    return _ssh_keygen(data, "sign", "-f", str(key), "-n", NAMESPACE)


def verify_signature(data: bytes, signature: Path, allowed_signers: Path, identity: str) -> str:
    """What `ssh-keygen` says of a signature by one whom the file of allowed signers names (ssh-keygen(1)).

    Raises SignatureFailed when it is of other data, by another key, or by no one of that name.
    """
    given = ("-f", str(allowed_signers), "-I", identity, "-n", NAMESPACE, "-s", str(signature))
    return _ssh_keygen(data, "verify", *given).decode(errors="replace").strip()


def verify_intact(data: bytes, signature: Path) -> str:
    """The same, of a signature by whomever. Raises SignatureFailed when it is of other data."""
    given = ("-n", NAMESPACE, "-s", str(signature))
    return _ssh_keygen(data, "check-novalidate", *given).decode(errors="replace").strip()


def require_signer() -> None:
    """Raises NoSigner when there is nothing to sign and verify with."""
    if shutil.which("ssh-keygen") is None:
        raise NoSigner("expected ssh-keygen, which makes and verifies signatures: install OpenSSH")


def _ssh_keygen(data: bytes, verb: str, *words: str) -> bytes:
    require_signer()
    done = subprocess.run(["ssh-keygen", "-Y", verb, *words], input=data, capture_output=True)
    if done.returncode != 0:
        said = " ".join((done.stderr + done.stdout).decode(errors="replace").split())
        raise SignatureFailed(f"ssh-keygen -Y {verb}: {said or f'status {done.returncode}'}")
    return done.stdout
