"""10,000 rows and five metrics on one thread, beside the Python programs on the same rows.

    cargo build --release -p eval --example eval_speed
    scripts/eval-oracle && target/eval-oracle/bin/python bench/eval.py [--rows N]

Both sides get texts in memory and answer the number over all rows; loading is not counted. What is
compared is processor time, so that others on the machine do not decide. The numbers must agree, or
the comparison means nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import pathlib
import random
import subprocess
import sys
import tempfile
import time

from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF
from sklearn.metrics import f1_score

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "target/release/examples/eval_speed"
DICTIONARY = ROOT / "target/test-models/ipadic/ipadic.zst"
logging.disable(logging.WARNING)

ENGLISH = """the a of to and in that model answers question with short clear text when people ask
about weather trains history music science they want facts numbers dates names not guesses
running tests shows quality fell rose after change prompt version release because data moved
quickly slowly carefully often never Tokyo Paris 2026 3.5 1,000 it's don't state-of-the-art""".split()
JAPANESE = """私 は が を に で 東京 京都 図書館 本 新しい 古い 技術 データ 学習 する した します 読む 食べる
料理 会議 問題 答え 質問 とても 大切 です でした ます 。 、 そして しかし 昨日 今日 明日 天気 電車""".split()
LABELS = ["positive", "negative", "neutral", "mixed"]


def pairs(rng: random.Random, words: list[str], glue: str, count: int) -> list[list]:
    rows = []
    for _ in range(count):
        reference = [rng.choice(words) for _ in range(rng.randint(12, 40))]
        answer = [w for w in reference if rng.random() > 0.15]
        answer = [rng.choice(words) if rng.random() < 0.15 else w for w in answer] or ["the"]
        rows.append([glue.join(answer) + ".", [glue.join(reference) + "."]])
    return rows


def sacrebleu(metric, rows):
    return metric.corpus_score([r[0] for r in rows], [[r[1][0] for r in rows]]).score


def rouge_l(rows):
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    return sum(scorer.score(r[1][0], r[0])["rougeL"].fmeasure for r in rows) / len(rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000)
    count = parser.parse_args().rows
    rng = random.Random(20261121)
    english, japanese = pairs(rng, ENGLISH, " ", count), pairs(rng, JAPANESE, "", count)
    labels = [[rng.choice(LABELS), [rng.choice(LABELS)]] for _ in range(count)]
    cases = [
        ("BLEU 13a", english, {"id": "compat:bleu"}, lambda r: sacrebleu(BLEU(), r)),
        ("chrF++", english, {"id": "compat:chrf", "word_order": 2},
         lambda r: sacrebleu(CHRF(word_order=2), r)),
        ("ROUGE-L stemmed", english, {"id": "compat:rouge", "variant": "L", "stem": True}, rouge_l),
        ("BLEU ja-mecab", japanese, {"id": "compat:bleu", "tokeniser": "ja-mecab"},
         lambda r: sacrebleu(BLEU(tokenize="ja-mecab"), r)),
        ("macro F1", labels, {"id": "compat:f", "labels": LABELS},
         lambda r: f1_score([x[1][0] for x in r], [x[0] for x in r], average="macro")),
    ]
    print(f"| {count:,} rows, one thread | Python s | Meguri s | times | value |\n|---|---:|---:|---:|---:|")
    wrong = False
    for name, rows, definition, python in cases:
        started = time.process_time()
        theirs = python(rows)
        python_s = time.process_time() - started
        with tempfile.TemporaryDirectory() as folder:
            data, metrics = pathlib.Path(folder, "rows.jsonl"), pathlib.Path(folder, "metrics.json")
            data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
            metrics.write_text(json.dumps([definition] * 3), "utf-8")
            run = subprocess.run([PROGRAM, data, metrics, DICTIONARY], check=True, capture_output=True)
        ours = sorted((json.loads(line) for line in run.stdout.splitlines()), key=lambda o: o["seconds"])[1]
        agree = abs(ours["value"] - theirs) < 1e-6
        wrong |= not agree
        print(f"| {name} | {python_s:.2f} | {ours['seconds']:.3f} | {python_s / ours['seconds']:.0f} |"
              f" {ours['value']:.4f}{'' if agree else f' (Python {theirs:.4f})'} |")
    if wrong:
        sys.exit("the numbers differ")


if __name__ == "__main__":
    main()
