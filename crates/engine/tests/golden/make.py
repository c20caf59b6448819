"""Makes the reference answers that the engine's tests compare with.

Run by hand when a corpus changes, never by the tests:

    python make.py tokens     GGUF     # token ids: llama.cpp and Hugging Face tokenizers
    python make.py greedy     GGUF     # greedy answers and their margins: llama.cpp
    python make.py embeddings MODELDIR # sentence-transformers

Needs numpy, gguf, tokenizers, llama-cpp-python; `embeddings` needs
sentence-transformers and torch instead. Results are written beside this file.
"""

import base64
import hashlib
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent


def corpus():
    """1,000 different strings: the committed lines, then combinations of their parts.

    The generator is repeated in tests/golden.rs, number for number.
    """
    lines = [json.loads(line) for line in (HERE / "corpus.jsonl").read_text("utf-8").splitlines()]
    glue = ["", " ", "  ", "\n", "\n\n", "\t", " - ", "。", "... ", "\u3000", "\r\n", "7", "'s ", "\u200d", " 🌸", "_"]
    state = 20261121
    strings = list(lines)
    while len(strings) < 1000:
        picks = []
        for _ in range(4):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            picks.append(state >> 33)
        first, second = lines[picks[0] % len(lines)], lines[picks[1] % len(lines)]
        cut = picks[3] % (len(first) + 1)
        text = first[:cut] + glue[picks[2] % len(glue)] + second
        if text not in strings:
            strings.append(text)
    return strings


def digest(ids):
    return hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()[:16]


def hugging_face(path):
    """The tokenizer that the model's authors publish, rebuilt from the file's vocabulary: digits
    one by one, then GPT-2's own splitting, then byte-level BPE."""
    from gguf import GGUFReader
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    fields = GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, kinds) if k == 3]
    )
    return tokenizer


def tokens(path):
    import llama_cpp

    llama = llama_cpp.Llama(path, vocab_only=True, verbose=False)
    tokenizer = hugging_face(path)
    out, differences = [], []
    for text in corpus():
        from_llama = llama.tokenize(text.encode(), add_bos=False, special=True)
        from_hf = tokenizer.encode(text, add_special_tokens=False).ids
        out.append(digest(from_hf))
        if from_llama != from_hf:
            differences.append([text, from_hf, from_llama])
    (HERE / "tokens.json").write_text(
        json.dumps({"digests": out, "different_in_llama_cpp": differences}, indent=0)
    )
    print(len(out), "strings;", len(differences), "differ between the two references")


def greedy_run(path, count, token_by_token=False, **options):
    """Greedy answers to all prompts: ids, and per step the runner-up and its distance."""
    import llama_cpp
    import numpy

    llama = llama_cpp.Llama(path, n_ctx=1024, n_threads=2, logits_all=True, verbose=False, **options)
    out = []
    for prompt in json.loads((HERE / "prompts.json").read_text("utf-8")):
        ids = llama.tokenize(prompt.encode(), add_bos=False, special=True)
        llama.reset()
        for part in [[token] for token in ids] if token_by_token else [ids]:
            llama.eval(part)
        answer = {"prompt": prompt, "prompt_ids": ids, "ids": [], "second": [], "margins": []}
        for _ in range(count):
            logits = numpy.array(llama.scores[llama.n_tokens - 1])
            second, best = (int(i) for i in numpy.argpartition(logits, -2)[-2:])
            answer["ids"].append(best)
            answer["second"].append(second)
            answer["margins"].append(round(float(logits[best] - logits[second]), 4))
            if best == llama.token_eos():
                break
            llama.eval([best])
        out.append(answer)
    return out


def first_difference(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), None)


def greedy(path):
    """llama.cpp's default run, and where llama.cpp leaves it when only the order of its own
    arithmetic changes: prompt read token by token, or flash attention."""
    out = greedy_run(path, 40)
    for options in ({"token_by_token": True}, {"flash_attn": True}):
        for answer, other in zip(out, greedy_run(path, 40, **options)):
            place = first_difference(answer["ids"], other["ids"])
            answer.setdefault("llama_cpp_leaves_itself_at", []).append(place)
    (HERE / "greedy.json").write_text(json.dumps(out, ensure_ascii=False))
    print(sum(any(p is not None and p < 32 for p in a["llama_cpp_leaves_itself_at"]) for a in out), "of", len(out))


def embeddings(path):
    import numpy
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(path, device="cpu")
    lines = [json.loads(line) for line in (HERE / "corpus.jsonl").read_text("utf-8").splitlines()]
    texts = [line for line in lines if line.strip()][:96]
    # Lengths around and beyond the cut at 256 tokens.
    texts += [" ".join(["vector search finds similar text"] * n) for n in (20, 50, 51, 80)]
    vectors = model.encode(texts, normalize_embeddings=True, convert_to_numpy=True)
    packed = base64.b64encode(vectors.astype(numpy.float32).tobytes()).decode()
    (HERE / "embeddings.json").write_text(
        json.dumps({"texts": texts, "width": vectors.shape[1], "f32_le_base64": packed}, ensure_ascii=False)
    )
    print(vectors.shape)


if __name__ == "__main__":
    {"tokens": tokens, "greedy": greedy, "embeddings": embeddings}[sys.argv[1]](sys.argv[2])
