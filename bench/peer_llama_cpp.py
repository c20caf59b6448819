"""llama.cpp's speed on one GGUF through llama-cpp-python: `peer_llama_cpp.py FILE THREADS PROMPT_TOKENS NEW_TOKENS ROUNDS`.

Prints one JSON line: tokens per second, median of the rounds. Run with an environment that has llama-cpp-python.
"""

import json
import statistics
import sys
import time

from llama_cpp import Llama, __version__

path, threads, prompt_tokens, new_tokens, rounds = sys.argv[1], *map(int, sys.argv[2:6])
model = Llama(path, n_ctx=prompt_tokens + new_tokens + 8, n_threads=threads, n_threads_batch=threads, n_batch=512, verbose=False)
text = b"The history of the city begins with a harbour. " * prompt_tokens
prompt = model.tokenize(text)[:prompt_tokens]
prefill, decode = [], []
for _ in range(rounds):
    model.reset()
    began = time.perf_counter()
    model.eval(prompt)
    filled = time.perf_counter()
    for _ in range(new_tokens):
        model.eval([model.sample(temp=0.0)])
    done = time.perf_counter()
    prefill.append(prompt_tokens / (filled - began))
    decode.append(new_tokens / (done - filled))
print(json.dumps({"version": __version__, "prefill": statistics.median(prefill), "decode": statistics.median(decode)}))
