"""Adds each of the blocks of cases.txt to a token, with biscuit-python, and prints the tokens.

    attenuate.py TOKEN CASES

The keys are those of the tests (src/wire/tests): the root that signed the token, its holder, and
the one it is handed to.
"""

import sys

from biscuit_auth import Algorithm, Biscuit, BlockBuilder, KeyPair, PrivateKey


def pair(byte):
    return KeyPair.from_private_key(PrivateKey.from_bytes(bytes([byte] * 32), Algorithm.Ed25519))


def added(token, how, source):
    if how == "block":
        return token.append(BlockBuilder(source))
    signer, to = pair({"handed": 100, "stranger": 109}[how]), pair(101).public_key
    block = BlockBuilder(f"delegate(hex:{bytes(to.to_bytes()).hex()}); {source}")
    signed = token.third_party_request().create_block(signer.private_key, block)
    return token.append_third_party(signer.public_key, signed)


def main(token, cases):
    with open(token, encoding="ascii") as file:
        text = file.read().strip()
    token = Biscuit.from_base64(text + "=" * (-len(text) % 4), pair(7).public_key)
    with open(cases, encoding="ascii") as file:
        for line in file:
            if not line.startswith("#"):
                how, _, source = line.strip().split(" | ")
                print(added(token, how, source).to_base64())


main(*sys.argv[1:])
