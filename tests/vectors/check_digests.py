"""Recomputes every digest and id of request.json and decision.json with nothing of ours.

Run it beside the files: `python3 check_digests.py`. It prints one line a file and fails on the first
difference.
"""

import hashlib
import json
import pathlib
import struct

HERE = pathlib.Path(__file__).parent


def digest(domain: str, *parts: bytes) -> str:
    return hashlib.sha256(domain.encode() + b"\0" + b"".join(parts)).hexdigest()


def grant(request: dict) -> str:
    parts = [
        b"grant",
        bytes.fromhex(request["epoch"]),
        request["workload"].encode(),
        bytes.fromhex(request["request_id"].replace("-", "")),
    ]
    framed = b"".join(struct.pack(">Q", len(part)) + part for part in parts)
    return hashlib.sha256(framed).hexdigest()[:32]


requests = json.loads((HERE / "request.json").read_text())["good"]
for vector in requests:
    canonical = vector["canonical"]
    assert digest("dayfly.request.v1", canonical.encode()) == vector["digest"], vector["number"]
    assert grant(json.loads(canonical)) == vector["grant"], vector["number"]
print(f"request.json: {len(requests)} digests hold")

texts = json.loads((HERE / "decision.json").read_text())["texts"]
for vector in texts:
    salt = bytes.fromhex(vector["salt"])
    assert digest("dayfly.text.v1", salt, vector["text"].encode()) == vector["digest"]
print(f"decision.json: {len(texts)} text digests hold")
