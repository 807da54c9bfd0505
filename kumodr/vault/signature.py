"""Whether a signature is a key's: one question, asked of manifests, segments and evidence."""


def check_signature(body: bytes, key: str, signature: bytes) -> None:
    """Given bytes, a public Ed25519 key in hexadecimal and a signature, raise ValueError where it is not the key's."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(signature, body)
    except InvalidSignature as error:
        raise ValueError("wrong signature") from error
