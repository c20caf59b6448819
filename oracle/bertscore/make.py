"""BERTScore by numpy alone, for crates/server/tests/it/bertscore.json.

    python oracle/bertscore/make.py target/test-models/minilm

Run by hand when the rules change, never by the tests. Needs numpy and tokenizers.
The rules are those of bert-score 0.3.13 (score.py, utils.py), written down again
without torch: a BERT forward pass in 64-bit floats, cosine of normalised token
vectors, [CLS] and [SEP] as partners without weight, idf of the references, the best
of several references for each number. Before anything is written the forward pass
is held against vectors that sentence-transformers made
(crates/engine/tests/golden/embeddings.json).
"""

import base64
import collections
import json
import math
import pathlib
import sys

import numpy
from tokenizers import Tokenizer

ROOT = pathlib.Path(__file__).parents[2]


def safetensors(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    out = {}
    for name, info in header.items():
        if info["dtype"] != "F32":
            continue
        begin, end = (8 + size + at for at in info["data_offsets"])
        values = numpy.frombuffer(data[begin:end], dtype="<f4").astype(numpy.float64)
        out[name.removeprefix("bert.")] = values.reshape(info["shape"])
    return out


def gelu(x):
    return x * 0.5 * (1 + numpy.vectorize(math.erf)(x / math.sqrt(2)))


class Bert:
    def __init__(self, folder):
        self.weights = safetensors(folder / "model.safetensors")
        self.config = json.loads((folder / "config.json").read_text())
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        length = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
        self.tokenizer.enable_truncation(length)

    def norm(self, x, name):
        w = self.weights
        centred = x - x.mean(-1, keepdims=True)
        spread = numpy.sqrt((centred**2).mean(-1, keepdims=True) + self.config["layer_norm_eps"])
        return centred / spread * w[name + ".weight"] + w[name + ".bias"]

    def linear(self, x, name):
        return x @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]

    def layers(self, ids):
        w = self.weights
        heads = self.config["num_attention_heads"]
        x = (
            w["embeddings.word_embeddings.weight"][ids]
            + w["embeddings.position_embeddings.weight"][: len(ids)]
            + w["embeddings.token_type_embeddings.weight"][0]
        )
        x = self.norm(x, "embeddings.LayerNorm")
        states = [x]
        for index in range(self.config["num_hidden_layers"]):
            at = f"encoder.layer.{index}."
            split = lambda y: y.reshape(len(ids), heads, -1).transpose(1, 0, 2)
            query, key, value = (
                split(self.linear(x, at + "attention.self." + part))
                for part in ("query", "key", "value")
            )
            scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
            scores = numpy.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
            mixed = (scores @ value).transpose(1, 0, 2).reshape(len(ids), -1)
            x = self.norm(self.linear(mixed, at + "attention.output.dense") + x, at + "attention.output.LayerNorm")
            inner = gelu(self.linear(x, at + "intermediate.dense"))
            x = self.norm(self.linear(inner, at + "output.dense") + x, at + "output.LayerNorm")
            states.append(x)
        return states

    def encode(self, text):
        return self.tokenizer.encode(text.strip()).ids


def check_forward(bert):
    golden = json.loads((ROOT / "crates/engine/tests/golden/embeddings.json").read_text())
    vectors = numpy.frombuffer(base64.b64decode(golden["f32_le_base64"]), dtype="<f4").reshape(-1, golden["width"])
    worst = 0.0
    for text, expected in list(zip(golden["texts"], vectors))[::4]:
        mean = bert.layers(bert.tokenizer.encode(text).ids)[-1].mean(0)
        worst = max(worst, float(numpy.abs(mean / numpy.linalg.norm(mean) - expected).max()))
    assert worst < 2e-6, worst
    print("the forward pass is sentence-transformers' to", worst)


def idf_of(bert, references):
    """utils.get_idf_dict: every reference is a document, its set of ids counts."""
    counts = collections.Counter()
    for text in references:
        counts.update(set(bert.encode(text)))
    total = len(references)
    return lambda token: math.log((total + 1) / (counts.get(token, 0) + 1))


def pair(bert, answer, reference, layer, weight):
    """utils.greedy_cos_idf for one pair."""
    sides = [bert.encode(answer), bert.encode(reference)]
    if any(len(ids) == 2 for ids in sides):
        return numpy.zeros(3)
    special = {sides[0][0], sides[0][-1]}
    ours, theirs = (bert.layers(ids)[layer] for ids in sides)
    ours /= numpy.linalg.norm(ours, axis=-1, keepdims=True)
    theirs /= numpy.linalg.norm(theirs, axis=-1, keepdims=True)
    cosines = ours @ theirs.T
    weights = [numpy.array([0.0 if t in special else weight(t) for t in ids]) for ids in sides]
    precision = (cosines.max(1) * weights[0]).sum() / weights[0].sum()
    recall = (cosines.max(0) * weights[1]).sum() / weights[1].sum()
    return numpy.array([precision, recall, 2 * precision * recall / (precision + recall)])


CASES = [
    ("The cat sat on the mat.", ["A cat was sitting on the mat."]),
    ("The cat sat on the mat.", ["The cat sat on the mat."]),
    ("Stocks fell sharply in Tokyo.", ["The museum opens at nine."]),
    ("It is cold today", ["It's freezing today.", "The weather is cold today.", "Dogs bark"]),
    ("Paris", ["The capital of France is Paris."]),
    ("The capital of France is Paris.", ["Paris"]),
    ("  spaces around  ", ["spaces around"]),
    ("", ["Something was expected."]),
    ("UPPER case and café", ["upper CASE and cafe"]),
    ("東京は日本の首都です。", ["日本の首都は東京である。"]),
    ("東京は日本の首都です。", ["京都は古い都です。"]),
    ("1,234.50 dollars", ["1234.5 USD"]),
    ("word " * 300, ["word " * 20]),
    ("[SEP] is a token here", ["a separator is a token here"]),
    ("🙂 fine", ["fine"]),
    ("Refunds take five working days.", ["A refund takes 5 business days.", "Refunds are made within a week."]),
]


def main(folder):
    bert = Bert(folder)
    check_forward(bert)
    corpus = [reference for _, references in CASES for reference in references]
    weight = idf_of(bert, corpus)
    cases = []
    for answer, references in CASES:
        for layer in (0, 3, 6):
            for idf in (False, True):
                found = [pair(bert, answer, r, layer, weight if idf else lambda _: 1.0) for r in references]
                best = numpy.max(found, axis=0)
                cases.append(
                    {"answer": answer, "references": references, "layer": layer, "idf": idf, "prf": [round(float(x), 9) for x in best]}
                )
    path = ROOT / "crates/server/tests/it/bertscore.json"
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    path.write_text(f'{{"cases": [\n{lines}\n]}}\n')
    print(len(cases), "cases")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
