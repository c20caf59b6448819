"""llama.cpp's speed on one GGUF through llama-cpp-python: `peer_llama_cpp.py FILE THREADS PROMPT_TOKENS NEW_TOKENS`.

Prints one JSON line: tokens per second. Run with an environment that has llama-cpp-python. The next
token is taken from the logits directly: the package's own sampling costs more than the model.
"""

import json
import sys
import time

import llama_cpp
import numpy

path, threads, prompt_tokens, new_tokens = sys.argv[1], *map(int, sys.argv[2:5])
model = llama_cpp.Llama(path, n_ctx=prompt_tokens + new_tokens + 8, n_threads=threads, n_threads_batch=threads, n_batch=512, verbose=False)
prompt = model.tokenize(b"The history of the city begins with a harbour. " * prompt_tokens)[:prompt_tokens]
model.eval(prompt[:32])  # warm
model.reset()
began = time.perf_counter()
model.eval(prompt)
filled = time.perf_counter()
for _ in range(new_tokens):
    logits = llama_cpp.llama_get_logits_ith(model.ctx, -1)
    model.eval([int(numpy.ctypeslib.as_array(logits, shape=(model.n_vocab(),)).argmax())])
done = time.perf_counter()
features = [word.split(" = ")[0].strip() for word in llama_cpp.llama_print_system_info().decode().replace("CPU :", "").split("|") if "= 1" in word]
print(json.dumps({
    "version": llama_cpp.__version__, "features": features,
    "prefill": prompt_tokens / (filled - began), "decode": new_tokens / (done - filled),
}))
