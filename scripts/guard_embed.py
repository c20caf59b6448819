"""Asks a running Meguri for the embedding of each window that the classifiers are trained,
tuned and measured on: guard_embed.py WINDOWS.jsonl OUT.f32 ADDRESS MODEL, with the key in
MEGURI_KEY. A line is a JSON string; OUT holds one vector of 32-bit numbers after the other, in
the same order. What is there already is not asked again: OUT may be continued.
"""

import array
import json
import os
import pathlib
import sys
import urllib.request

windows, out, address, model = sys.argv[1:5]
out = pathlib.Path(out)
AT_A_TIME = 64


def embed(texts):
    body = json.dumps({"model": model, "input": texts}).encode()
    headers = {"content-type": "application/json", "authorization": "Bearer " + os.environ["MEGURI_KEY"]}
    request = urllib.request.Request(f"{address}/v1/embeddings", body, headers)
    with urllib.request.urlopen(request, timeout=600) as answer:
        rows = json.load(answer)["data"]
    return [row["embedding"] for row in sorted(rows, key=lambda row: row["index"])]


texts = [json.loads(line) for line in open(windows)]
length = len(embed(["length"])[0])
done = out.stat().st_size // (4 * length) if out.exists() else 0
with open(out, "r+b" if out.exists() else "wb") as file:
    file.truncate(done * 4 * length)
    file.seek(done * 4 * length)
    for start in range(done, len(texts), AT_A_TIME):
        for vector in embed(texts[start : start + AT_A_TIME]):
            array.array("f", vector).tofile(file)
        print(f"\r{start} of {len(texts)}", end="", file=sys.stderr)
