"""Answers questions with the programs that `compat:` metrics promise to equal.

One question per line on standard input, as JSON; one answer per line on standard output. Which
programs, in which versions: requirements.txt. The questions are made by tests/it/cases.rs.
"""

import json
import logging
import math
import sys
import warnings

import MeCab
import ipadic
from nltk.stem.porter import PorterStemmer
from rapidfuzz.distance import Indel, Levenshtein
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.metrics.bleu import _get_tokenizer
from sacrebleu.significance import PairedTest
from sklearn import metrics as sk
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
VADER = SentimentIntensityAnalyzer()
PORTER = PorterStemmer()
MECAB = MeCab.Tagger(ipadic.MECAB_ARGS + " -Owakati")


def number(value):
    return None if math.isnan(value) else float(value)


def streams(rows):
    """sacreBLEU wants one list per reference position; rows may have different numbers."""
    most = max(len(references) for _, references in rows)
    return [[refs[i] if i < len(refs) else None for _, refs in rows] for i in range(most)]


def bleu(ask):
    def metric(effective):
        return BLEU(
            lowercase=ask["lowercase"], tokenize=ask["tokeniser"], smooth_method=ask["smooth"],
            smooth_value=ask["smooth_value"], max_ngram_order=ask["max_order"],
            effective_order=effective, force=True,
        )

    corpus = metric(ask["effective_order"])
    score = corpus.corpus_score([row[0] for row in ask["rows"]], streams(ask["rows"])).score
    sentence = metric(True)
    return {
        "corpus": score,
        "rows": [sentence.sentence_score(out, refs).score for out, refs in ask["rows"]],
        "signature": str(corpus.get_signature()),
    }


def chrf(ask):
    metric = CHRF(
        char_order=ask["char_order"], word_order=ask["word_order"], beta=ask["beta"],
        lowercase=ask["lowercase"], whitespace=ask["whitespace"], eps_smoothing=ask["eps_smoothing"],
    )
    score = metric.corpus_score([row[0] for row in ask["rows"]], streams(ask["rows"])).score
    return {
        "corpus": score,
        "rows": [metric.sentence_score(out, refs).score for out, refs in ask["rows"]],
        "signature": str(metric.get_signature()),
    }


def rouge(ask):
    kinds = ["rouge1", "rouge2", "rouge3", "rougeL", "rougeLsum"]
    scorer = rouge_scorer.RougeScorer(kinds, use_stemmer=ask["stem"])
    rows = []
    for out, refs in ask["rows"]:
        scores = scorer.score_multi(refs, out)
        rows.append([[scores[k].precision, scores[k].recall, scores[k].fmeasure] for k in kinds])
    return {"rows": rows}


def labels(ask):
    zero = {"0": 0, "1": 1, "nan": math.nan}[ask["zero_division"]]
    expected, given = ask["expected"], ask["given"]
    common = dict(labels=ask["labels"], average=ask["average"], zero_division=zero)
    if ask["average"] == "binary":
        # scikit-learn's binary wants two classes; one class among many is its value per class.
        at = sorted(set(expected) | set(given)) if ask["labels"] is None else ask["labels"]
        common["average"] = None
        place = at.index(ask["positive"])
        pick = lambda values: number(values[place])
    else:
        pick = number
    return {
        "precision": pick(sk.precision_score(expected, given, **common)),
        "recall": pick(sk.recall_score(expected, given, **common)),
        "f": pick(sk.fbeta_score(expected, given, beta=ask["beta"], **common)),
        "accuracy": number(sk.accuracy_score(expected, given)),
    }


def distance(ask):
    rows = []
    for a, b in ask["pairs"]:
        rows.append([
            [kind.distance(a, b), kind.similarity(a, b), kind.normalized_distance(a, b),
             kind.normalized_similarity(a, b)]
            for kind in (Levenshtein, Indel)
        ])
    return {"rows": rows}


def vader(ask):
    scores = [VADER.polarity_scores(text) for text in ask["texts"]]
    return {"rows": [[s["compound"], s["pos"], s["neu"], s["neg"]] for s in scores]}


def porter(ask):
    return {"rows": [PORTER.stem(word) for word in ask["words"]]}


def tokenise(ask):
    tokenizer = _get_tokenizer(ask["tokeniser"])()
    return {"rows": [tokenizer(text).split() for text in ask["texts"]]}


def paired(ask):
    references = [[row[1][0] for row in ask["rows"]]]
    systems = [("base", [row[0] for row in ask["rows"]]), ("new", ask["other"])]
    metrics = {"BLEU": BLEU()}
    _, scores = PairedTest(systems, metrics, references, test_type="bs", n_samples=200)()
    base, new = scores["BLEU"]
    return {"baseline": base.score, "system": new.score, "mean": float(new.mean), "half_width": float(new.ci),
            "p": new.p_value}


def wakati(ask):
    return {"rows": [MECAB.parse(text.strip()).strip() for text in ask["texts"]]}


ANSWER = {
    "bleu": bleu, "chrf": chrf, "rouge": rouge, "labels": labels, "distance": distance,
    "vader": vader, "porter": porter, "tokenise": tokenise, "wakati": wakati, "paired": paired,
}

for line in sys.stdin:
    ask = json.loads(line)
    print(json.dumps(ANSWER[ask["ask"]](ask), ensure_ascii=True), flush=True)
